package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
)

// URL returns the address of a database on the loopback port. Options are
// "name=value", as in "sslmode=verify-full"; TLS is off when they do not ask
// for it, and the superuser asks unless "user=..." names another.
func (s *Server) URL(database string, options ...string) string {
	return s.address(fmt.Sprintf("127.0.0.1:%d", s.Port), database, options)
}

// SocketURL is URL by the UNIX socket.
func (s *Server) SocketURL(database string, options ...string) string {
	return s.address("", database, append([]string{"host=" + s.SocketDir, fmt.Sprintf("port=%d", s.Port)}, options...))
}

func (s *Server) address(host, database string, options []string) string {
	v := url.Values{"sslmode": {"disable"}, "user": {User}}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		v.Set(name, value)
	}
	u := url.URL{Scheme: "postgres", Host: host, Path: "/" + database, RawQuery: v.Encode()}
	return u.String()
}

// CreateDatabase makes an empty database and returns its name.
func (s *Server) CreateDatabase(ctx context.Context) (string, error) {
	name := "t" + strings.ToLower(rand.Text())
	return name, s.Exec(ctx, "postgres", "CREATE DATABASE "+name)
}

// Exec runs statements in a database, as psql -c does.
func (s *Server) Exec(ctx context.Context, database, sql string) error {
	conn, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		return err
	}
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	if cerr := conn.Close(ctx); err == nil {
		err = cerr
	}
	return err
}
