// Package pgsource reads where a PostgreSQL database is: a URL or a connection
// string of libpq, with its options, environment, service and password files.
package pgsource

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// DefaultConnectTimeout bounds the connection to one host when neither the
// source nor the environment does (connect_timeout).
const DefaultConnectTimeout = 5 * time.Second

// Parse reads a source. Its errors say what is wrong without repeating the
// source, which may hold a password.
func Parse(source string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(source)
	if err != nil {
		return nil, plain(err)
	}
	if c.ConnectTimeout <= 0 {
		c.ConnectTimeout = DefaultConnectTimeout
	}
	if _, ok := c.RuntimeParams["application_name"]; !ok {
		c.RuntimeParams["application_name"] = "tabard"
	}
	return c, nil
}

// plain takes from an error of pgx what it quotes from the source. A file that
// cannot be read is named.
func plain(err error) error {
	var e *pgconn.ParseConfigError
	if !errors.As(err, &e) {
		return errors.New("not a PostgreSQL URL or connection string")
	}
	e.ConnString = ""
	text := strings.TrimPrefix(e.Error(), "cannot parse ``: ")
	inner := errors.Unwrap(e)
	if inner == nil {
		return errors.New(text)
	}
	text = strings.TrimSuffix(text, " ("+inner.Error()+")")
	if file := (*fs.PathError)(nil); errors.As(inner, &file) {
		return errors.New(text + ": " + file.Error())
	}
	return errors.New(text)
}
