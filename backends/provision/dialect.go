package provision

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"tabard/migrations"
)

// Source says where a database with our own schema is. Exactly one is set.
type Source struct {
	Path     string // of an SQLite database
	Conninfo string // URL or libpq string of a PostgreSQL one; may hold a password
}

// String leaves passwords out.
func (s Source) String() string {
	if s.Conninfo != "" {
		return "PostgreSQL"
	}
	return s.Path
}

// dialect is what differs between databases.
type dialect string

const (
	sqliteDialect   dialect = migrations.SQLite
	postgresDialect dialect = migrations.Postgres
)

func (s Source) open() (*sql.DB, dialect, error) {
	if s.Conninfo != "" {
		db, err := migrations.OpenPostgres(s.Conninfo)
		return db, postgresDialect, err
	}
	if _, err := os.Stat(s.Path); err != nil {
		return nil, "", fmt.Errorf("%w: run tabard migrate to make it", err)
	}
	db, err := openSQLite(s.Path)
	return db, sqliteDialect, err
}

// Migrate brings the schema of a database to the current version, and returns the
// version before and after. An SQLite database is made when it is missing.
func (s Source) Migrate(ctx context.Context) (from, to int64, err error) {
	if s.Conninfo == "" {
		if err := private(s.Path); err != nil {
			return 0, 0, err
		}
	}
	db, d, err := s.open()
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	if from, to, err = migrations.Up(ctx, db, string(d), migrations.Provision); err != nil {
		return from, to, fmt.Errorf("%s: %w", s, err)
	}
	return from, to, nil
}

var (
	names  = regexp.MustCompile(`\{([a-z]+)\}`)
	params = regexp.MustCompile(`\?[1-9]?`)
)

// text writes a statement for the dialect. A name in braces compares without
// regard to case: by its collation in SQLite, by the index on lower() in
// PostgreSQL. Parameters are ? in their order, or ?1, ?2.
func (d dialect) text(query string) string {
	if d == sqliteDialect {
		return names.ReplaceAllString(query, `"$1"`)
	}
	n := 0
	query = params.ReplaceAllStringFunc(query, func(p string) string {
		if p != "?" {
			return "$" + p[1:]
		}
		n++
		return fmt.Sprint("$", n)
	})
	return names.ReplaceAllString(query, `lower("$1")`)
}

// isOvertaken reports whether somebody else changed the same rows meanwhile.
func isOvertaken(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "40001"
}

// IsUnavailable reports whether an error is the database's and not the data's: it
// is away, busy, full, or broken.
func IsUnavailable(err error) bool {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return lite.Code()&0xff != sqlite3.SQLITE_CONSTRAINT
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return !strings.HasPrefix(pg.Code, "22") && !strings.HasPrefix(pg.Code, "23")
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || errors.Is(err, driver.ErrBadConn) || pgconn.Timeout(err)
}

// isTaken reports whether a row is there already.
func isTaken(err error) bool {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// tx is a transaction in the dialect of its database.
type tx struct {
	*sql.Tx
	d dialect
}

func (t tx) exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return t.ExecContext(ctx, t.d.text(query), args...)
}
