// Package provision edits the provisioning schema in a SQLite or PostgreSQL
// database: what `tabard user`, `domain`, `alias`, `relay`, `cert` and `dkim` do.
// Servers that use the database are told of each change.
package provision

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"tabard/migrations"
	"tabard/table"
)

// Errors that say what to tell a person.
var (
	ErrExists = errors.New("exists already")
	ErrNone   = errors.New("no such row")
)

// DB is a database that is open for editing. It is safe for concurrent use, by
// several processes too.
type DB struct {
	db *sql.DB
	d  dialect
}

// Create opens the SQLite database at path, creates it (readable by its owner
// only) when it is missing, and brings the provisioning schema to the current
// version. A schema newer than the program is migrations.ErrNewer.
func Create(ctx context.Context, path string) (*DB, error) {
	s := Source{Path: path}
	if _, _, err := s.Migrate(ctx); err != nil {
		return nil, err
	}
	return Open(ctx, s)
}

// Open opens a database that is there and has the current schema.
func Open(ctx context.Context, s Source) (*DB, error) {
	db, d, err := s.open()
	if err != nil {
		return nil, err
	}
	have, want, err := migrations.Status(ctx, db, string(d), migrations.Provision)
	if err == nil && have < want {
		err = fmt.Errorf("provisioning schema has version %d, version %d is needed: run tabard migrate", have, want)
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	return &DB{db: db, d: d}, nil
}

func openSQLite(path string) (*sql.DB, error) {
	return OpenSQLite(path, "synchronous(FULL)", "secure_delete(1)")
}

// OpenSQLite opens a file that is there for reading and writing, with pragmas beside
// those that every database with our own schema has.
func OpenSQLite(path string, pragmas ...string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	v := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}}
	for _, p := range append([]string{"busy_timeout(10000)", "journal_mode(WAL)", "trusted_schema(0)"}, pragmas...) {
		v.Add("_pragma", p)
	}
	u.RawQuery = v.Encode()
	return sql.Open("sqlite", u.String())
}

// Close closes the database.
func (d *DB) Close() error { return d.db.Close() }

// add inserts a row; one that is there already is ErrExists.
func (d *DB) add(ctx context.Context, what, query string, args ...any) error {
	_, err := d.db.ExecContext(ctx, d.d.text(query), args...)
	return explain(what, err)
}

// change runs a statement that must touch a row, else it is ErrNone.
func (d *DB) change(ctx context.Context, what, query string, args ...any) error {
	r, err := d.db.ExecContext(ctx, d.d.text(query), args...)
	if err != nil {
		return explain(what, err)
	}
	n, err := r.RowsAffected()
	if err == nil && n == 0 {
		return fmt.Errorf("%s: %w", what, ErrNone)
	}
	return err
}

// explain says of which row a statement failed.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	if isTaken(err) {
		return fmt.Errorf("%s: %w", what, ErrExists)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// list runs a query and collects its rows by scan.
func list[T any](ctx context.Context, d *DB, query string, scan func(scan func(...any) error) (T, error), args ...any) ([]T, error) {
	rows, err := d.db.QueryContext(ctx, d.d.text(query), args...)
	return collected(rows, err, scan)
}

// collected is what scan makes of the rows of a query, which it closes.
func collected[T any](rows *sql.Rows, err error, scan func(scan func(...any) error) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells what Close would
	var all []T
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// texts collects a query's only column.
func (d *DB) texts(ctx context.Context, query string, args ...any) ([]string, error) {
	return list(ctx, d, query, func(scan func(...any) error) (s string, err error) {
		err = scan(&s)
		return s, err
	}, args...)
}

// key brings a name to the form in which it is looked up.
func key(what, name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" {
		return "", fmt.Errorf("%s: empty", what)
	}
	if strings.ContainsAny(name, " \t") {
		return "", fmt.Errorf("%s %q: blanks in it", what, name)
	}
	k, err := table.NormalKey(table.String, name)
	if err == nil {
		err = plainText(name, maxName)
	}
	if err != nil {
		return "", fmt.Errorf("%s %.40q: %w", what, name, err)
	}
	return k, nil
}

// What the schema takes, in characters and bytes.
const (
	maxName   = 320
	maxTarget = 2000
)

// plainText refuses what a database does not take as text.
func plainText(text string, max int) error {
	switch {
	case !utf8.ValidString(text):
		return errors.New("not UTF-8")
	case strings.ContainsRune(text, 0):
		return errors.New("NUL in it")
	case max > 0 && utf8.RuneCountInString(text) > max:
		return fmt.Errorf("longer than %d characters", max)
	}
	return nil
}
