// Package postgres answers from PostgreSQL: Tabard's own provisioning schema, or
// any schema through queries in a configuration file with the keys of OpenSMTPD's
// table-postgres. It keeps no answers; where the database tells what changed, it
// passes that on.
//
// A server that is away is a temporary error, at once, and heals by itself: see
// pool. Questions that wait for each other are asked in one statement.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"tabard/internal/config"
	"tabard/internal/pgsource"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/gather"
)

// Table is a database that answers by queries.
type Table struct {
	pool    *pool
	queries *queries
	channel string
	delim   string
}

var (
	_ table.Backend       = (*Table)(nil)
	_ table.Pinger        = (*Table)(nil)
	_ table.Validator     = (*Table)(nil)
	_ table.Watcher       = (*Table)(nil)
	_ table.Authenticator = (*Table)(nil)
)

// Open reads the URL or configuration file. The first question connects, so that
// a server that is away does not keep ours from starting. Ping tells.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	src, err := readSource(c.Source)
	if err != nil {
		return nil, err
	}
	cc, err := pgsource.Parse(src.conninfo)
	if err != nil {
		return nil, err
	}
	t := &Table{pool: newPool(cc, src.size, src.timeout), queries: src.queries, channel: src.channel, delim: o.Delimiter()}
	for _, q := range t.queries.all() {
		switch q.params {
		case 0:
			q.waiting = gather.New(t.lister(q), gather.Options{Timeout: src.timeout + 2*time.Second})
		case 1:
			q.waiting = gather.New(t.asker(q), gather.Options{Timeout: src.timeout + 2*time.Second})
		}
	}
	return t, nil
}

// asker asks for the keys that wait.
func (t *Table) asker(q *query) gather.Ask[string, []table.Row] {
	return func(ctx context.Context, keys []string) ([][]table.Row, error) {
		var all [][]table.Row
		err := t.pool.do(ctx, func(ctx context.Context, l *link) (err error) {
			if len(keys) > 1 {
				all, err = l.many(ctx, q, keys)
				return err
			}
			rows, err := l.one(ctx, q, keys[0])
			all = [][]table.Row{rows}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		return all, nil
	}
}

// rows returns what a query selects for key. A key that is no text of PostgreSQL
// is in no database.
func (t *Table) rows(ctx context.Context, q *query, key string) ([]table.Row, error) {
	if !utf8.ValidString(key) || strings.ContainsRune(key, 0) {
		return nil, ctx.Err()
	}
	return q.waiting.Do(ctx, key)
}

// lister asks once for all who wait for a list.
func (t *Table) lister(q *query) gather.Ask[string, []table.Row] {
	return func(ctx context.Context, keys []string) ([][]table.Row, error) {
		var rows []table.Row
		err := t.pool.do(ctx, func(ctx context.Context, l *link) (err error) {
			rows, err = l.one(ctx, q)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		return slices.Repeat([][]table.Row{rows}, len(keys)), nil
	}
}

// list returns what a query without a key selects.
func (t *Table) list(ctx context.Context, q *query) ([]table.Row, error) {
	return q.waiting.Do(ctx, "")
}

// Lookup returns what the service's query selects for key: one row's columns,
// or the columns of all rows one after the other where a service has several.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	q := t.queries.lookup[s]
	if q == nil || q.params != 1 {
		return nil, t.unsupported("query_", s)
	}
	rows, err := t.rows(ctx, q, key)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, table.ErrNotFound
	}
	if !q.many {
		return rows[0], nil
	}
	var row table.Row
	for _, r := range rows {
		row = append(row, r...)
	}
	if row == nil { // nothing but empty arrays
		return nil, table.ErrNotFound
	}
	return row, nil
}

// Check reports whether key is in the table. Candidates for an exact match are
// asked first; what only matching can find is walked after that.
func (t *Table) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	q := t.queries.lookup[s]
	walk := t.walkQuery(s)
	if q == nil && walk == nil || s == table.Auth {
		return false, t.unsupported("query_", s)
	}
	if q != nil {
		for _, k := range t.candidates(s, key) {
			rows, err := t.rows(ctx, q, k)
			if len(rows) > 0 || err != nil {
				return len(rows) > 0, err
			}
		}
	}
	if walk == nil {
		return false, nil
	}
	rows, err := t.list(ctx, walk)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		m, err := table.NewMatcher(s, r, t.delim)
		if err != nil {
			return false, fmt.Errorf("%s: %w", walk.name, err)
		}
		if m.Match(key) {
			return true, nil
		}
	}
	return false, nil
}

// Fetch returns the rows of the service's list.
func (t *Table) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	q := t.queries.fetch[s]
	if q == nil {
		return nil, t.unsupported("fetch_", s)
	}
	return t.list(ctx, q)
}

// Authenticates reports whether there is a query for passwords.
func (t *Table) Authenticates(context.Context) (bool, error) {
	return t.queries.lookup[table.Auth] != nil, nil
}

// Authenticate asks query_auth with user and password. Its first row says yes by
// a column that is true, or not 0.
func (t *Table) Authenticate(ctx context.Context, user, password string) (bool, error) {
	q := t.queries.lookup[table.Auth]
	if q == nil {
		return false, t.unsupported("query_", table.Auth)
	}
	for _, s := range []string{user, password} {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return false, ctx.Err()
		}
	}
	var rows []table.Row
	err := t.pool.do(ctx, func(ctx context.Context, l *link) (err error) {
		rows, err = l.one(ctx, q, user, password)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("%s: %w", q.name, withoutValues(err))
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return false, nil
	}
	switch strings.ToLower(rows[0][0]) {
	case "1", "t", "true", "y", "yes", "on":
		return true, nil
	case "", "0", "f", "false", "n", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%s: answers neither true nor false", q.name)
}

// withoutValues takes the server's words from an error about data, which may
// quote a password.
func withoutValues(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && !strings.HasPrefix(e.Code, "42") && !strings.HasPrefix(e.Code, "5") && !strings.HasPrefix(e.Code, "08") {
		return fmt.Errorf("the server refuses a value (SQLSTATE %s)", e.Code)
	}
	return err
}

// Ping connects and prepares every query, without running any. Tabard's own
// schema must have the version that this program knows.
func (t *Table) Ping(ctx context.Context) error {
	return t.pool.do(ctx, func(ctx context.Context, l *link) error {
		if t.queries.builtin {
			if err := t.checkVersion(ctx); err != nil {
				return err
			}
		}
		for _, q := range t.queries.all() {
			sd, err := l.PgConn().Prepare(ctx, "", q.sql, nil)
			if err == nil {
				err = q.fits(len(sd.Fields))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
		}
		return nil
	})
}

// checkVersion compares the schema with the program's.
func (t *Table) checkVersion(ctx context.Context) error {
	db := stdlib.OpenDB(*t.pool.config.Copy())
	defer func() { _ = db.Close() }() // it was only read from
	have, want, err := migrations.Status(ctx, db, migrations.Postgres, migrations.Provision)
	if err != nil {
		return err
	}
	if have < want {
		return fmt.Errorf("database %s: provisioning schema has version %d, version %d is needed: run tabard migrate", t.pool.config.Database, have, want)
	}
	return nil
}

// Validate walks the entries that a service has to read.
func (t *Table) Validate(ctx context.Context, s table.Service) error {
	q := t.queries.fetch[s]
	if q == nil || s != table.NetAddr && s != table.Regex {
		return nil
	}
	rows, err := t.list(ctx, q)
	if err != nil {
		return err
	}
	var bad []error
	for _, r := range rows {
		if _, err := table.NewMatcher(s, r, t.delim); err != nil {
			bad = append(bad, err)
			break
		}
	}
	return errors.Join(bad...)
}

// Close ends what is being asked, and closes the connections.
func (t *Table) Close() error {
	t.pool.close()
	return nil
}

// candidates returns the keys that an entry could be equal to.
func (t *Table) candidates(s table.Service, key string) []string {
	switch {
	case s == table.MailAddr:
		return table.MailAddrCandidates(key, t.delim)
	case s == table.Domain && !t.queries.builtin:
		return table.DomainCandidates(key)
	case s == table.NetAddr && !t.queries.builtin && strings.HasPrefix(key, "["):
		return []string{key, strings.Trim(key, "[]")}
	}
	return []string{key}
}

// walkQuery returns the query whose rows are matched one by one: the wildcards
// of our own schema, else the list that a configuration gave.
func (t *Table) walkQuery(s table.Service) *query {
	if !table.Walked(s) {
		return nil
	}
	if q := t.queries.walk[s]; q != nil {
		return q
	}
	return t.queries.fetch[s]
}

// unsupported says which line of a configuration is missing.
func (t *Table) unsupported(prefix string, s table.Service) error {
	if t.queries.builtin {
		return fmt.Errorf("%w: the provisioning schema has nothing for %s%s", table.ErrUnsupported, prefix, s)
	}
	return fmt.Errorf("%w: no %s%s is configured", table.ErrUnsupported, prefix, s)
}
