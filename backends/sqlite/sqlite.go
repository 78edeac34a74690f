// Package sqlite answers from SQLite databases: Tabard's own provisioning
// schema, or any schema through queries in a configuration file with the keys of
// OpenSMTPD's table-sqlite. It opens databases read-only and keeps no answers: a
// row that was committed is seen by the next question, and a watch tells of it.
//
// A database that is missing, locked or damaged is a temporary error, and heals
// when the file does.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/internal/config"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/gather"
)

// Bounds of one answer.
const (
	maxRows  = 10000
	maxBytes = 16 << 20
)

// Table is a database that answers by queries.
type Table struct {
	pool    pool
	queries *queries
	delim   string
}

var (
	_ table.Backend   = (*Table)(nil)
	_ table.Pinger    = (*Table)(nil)
	_ table.Watcher   = (*Table)(nil)
	_ table.Validator = (*Table)(nil)
)

// Open reads the configuration file, if there is one; the database itself is
// opened by the first question, so that a missing file does not keep a server
// from starting. Ping tells.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	src, err := readSource(c.Source)
	if err != nil {
		return nil, err
	}
	t := &Table{pool: pool{path: src.path, done: make(chan struct{})}, queries: src.queries, delim: o.Delimiter()}
	for _, q := range src.queries.lookup {
		q.waiting = gather.New(func(ctx context.Context, keys []string) ([][]table.Row, error) { return t.ask(ctx, q, keys) }, gather.Options{})
	}
	return t, nil
}

// Lookup returns what the service's query selects for key: one row's columns,
// or the columns of all rows one after the other where a service has several.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	q := t.queries.lookup[s]
	if q == nil {
		return nil, t.unsupported("query_", s)
	}
	rows, err := t.rows(ctx, q, key)
	if err != nil {
		return nil, err
	}
	row := slices.Concat(rows...)
	if row == nil {
		return nil, table.ErrNotFound
	}
	return row, nil
}

// Check reports whether key is in the table. Candidates for an exact match are
// asked first; what only matching can find is walked after that.
func (t *Table) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	q := t.queries.lookup[s]
	walk := t.walkQuery(s)
	if q == nil && walk == nil {
		return false, t.unsupported("query_", s)
	}
	if q != nil {
		for _, k := range t.candidates(s, key) {
			ok, err := t.exists(ctx, q, k)
			if ok || err != nil {
				return ok, err
			}
		}
	}
	if walk == nil {
		return false, nil
	}
	return t.walk(ctx, s, walk, key)
}

// Fetch returns the rows of the service's list.
func (t *Table) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	q := t.queries.fetch[s]
	if q == nil {
		return nil, t.unsupported("fetch_", s)
	}
	var rows []table.Row
	err := t.each(ctx, q, "", func(r table.Row) bool {
		rows = append(rows, r)
		return true
	})
	return rows, err
}

// Ping opens the database and prepares every query. Tabard's own schema must
// have the version that this program knows.
func (t *Table) Ping(ctx context.Context) error {
	h, err := t.pool.acquire()
	if err != nil {
		return err
	}
	defer h.users.Done()
	if t.queries.builtin {
		have, want, err := migrations.Status(ctx, h.db, migrations.SQLite, migrations.Provision)
		if err != nil {
			return err
		}
		if have < want {
			return fmt.Errorf("%s: provisioning schema has version %d, version %d is needed: run tabard migrate", t.pool.path, have, want)
		}
	}
	for _, q := range t.queries.all() {
		if err := t.prepare(ctx, h, q); err != nil {
			return err
		}
	}
	return nil
}

// Validate walks the entries that a service has to read.
func (t *Table) Validate(ctx context.Context, s table.Service) error {
	q := t.queries.fetch[s]
	if q == nil || s != table.NetAddr && s != table.Regex {
		return nil
	}
	var bad error
	err := t.each(ctx, q, "", func(r table.Row) bool {
		_, bad = table.NewMatcher(s, r, t.delim)
		return bad == nil
	})
	return errors.Join(err, bad)
}

// Close waits for the questions that are being asked, and closes the database.
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

func (t *Table) exists(ctx context.Context, q *query, key string) (bool, error) {
	rows, err := t.rows(ctx, q, key)
	return len(rows) > 0, err
}

func (t *Table) walk(ctx context.Context, s table.Service, q *query, key string) (bool, error) {
	found := false
	var bad error
	err := t.each(ctx, q, "", func(r table.Row) bool {
		var m table.Matcher
		if m, bad = table.NewMatcher(s, r, t.delim); bad != nil {
			return false
		}
		found = m.Match(key)
		return !found
	})
	if err == nil && bad != nil {
		err = fmt.Errorf("%s: %w", q.name, bad)
	}
	return found, err
}

// unsupported says which line of a configuration is missing.
func (t *Table) unsupported(prefix string, s table.Service) error {
	if t.queries.builtin {
		return fmt.Errorf("%w: the provisioning schema has nothing for %s%s", table.ErrUnsupported, prefix, s)
	}
	return fmt.Errorf("%w: no %s%s is configured", table.ErrUnsupported, prefix, s)
}

// columnsFit reports whether a query selects what its service can read.
func columnsFit(q *query, n int) error {
	if slices.Contains(q.columns, n) {
		return nil
	}
	return fmt.Errorf("%s: selects %d columns, %s needs %d", q.name, n, strings.TrimPrefix(strings.TrimPrefix(q.name, "query_"), "fetch_"), q.columns[0])
}
