// Package sqltable is what tables of SQL databases have in common: the queries of
// a configuration file or of Tabard's own schema, their parameters, and how
// questions of a table become questions of the database. How a database is
// reached, and how it is asked for many keys at once, is its Asker's.
package sqltable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"tabard/table"
	"tabard/table/gather"
)

// Asker puts queries to a database. It is safe for concurrent use. Every error is
// temporary; the query's name is added by who asks.
type Asker interface {
	// One returns the rows that a query selects for the values of its parameters,
	// or the first of them where it has not Many.
	One(ctx context.Context, q *Query, args []any) ([]table.Row, error)
	// Many returns what One would for each of several keys, in one round trip if
	// it can. The error wraps gather.ErrSplit if one of the keys may be at fault.
	Many(ctx context.Context, q *Query, keys []string) ([][]table.Row, error)
	// List gives the rows of a query without parameters to yield, until that
	// returns false.
	List(ctx context.Context, q *Query, yield func(table.Row) bool) error
}

// Table answers the questions of a table.Backend by queries.
type Table struct {
	ask     Asker
	queries *Queries
	delim   string
}

// New returns a table that asks queries, which belong to it from then on. Questions
// that wait for the database at the same time are put to it as one, within g.
func New(ask Asker, queries *Queries, o table.Options, g gather.Options) *Table {
	t := &Table{ask: ask, queries: queries, delim: o.Delimiter()}
	for _, q := range queries.lookup {
		q.waiting = gather.New(func(ctx context.Context, keys []string) ([][]table.Row, error) {
			return t.answer(ctx, q, keys)
		}, g)
	}
	return t
}

// Queries returns what the table asks.
func (t *Table) Queries() *Queries { return t.queries }

// answer asks for keys. Who is alone is asked for without further ado.
func (t *Table) answer(ctx context.Context, q *Query, keys []string) ([][]table.Row, error) {
	var all [][]table.Row
	var err error
	if len(keys) > 1 {
		all, err = t.ask.Many(ctx, q, keys)
	} else {
		all = make([][]table.Row, 1)
		all[0], err = t.ask.One(ctx, q, q.Args(keys[0]))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.Name, err)
	}
	return all, nil
}

// rows returns what a query selects for key.
func (t *Table) rows(ctx context.Context, q *Query, key string) ([]table.Row, error) {
	switch {
	case !q.asks(key):
		return nil, ctx.Err()
	case isText(key):
		return q.waiting.Do(ctx, key)
	case !t.queries.dialect.AnyBytes:
		return nil, ctx.Err()
	}
	all, err := t.answer(ctx, q, []string{key})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func isText(key string) bool { return utf8.ValidString(key) && strings.IndexByte(key, 0) < 0 }

// Lookup returns what the service's query selects for key: one row's columns,
// or the columns of all rows one after the other where a service has several.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	q := t.queries.lookup[s]
	if q == nil || s == table.Auth {
		return nil, t.unsupported("query_", s)
	}
	rows, err := t.rows(ctx, q, key)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, table.ErrNotFound
	}
	row := rows[0]
	if q.Many && len(rows) > 1 {
		row = slices.Concat(rows...)
	}
	if q.Many && len(row) == 0 { // nothing but empty arrays
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
	return t.walk(ctx, s, walk, key)
}

// walk matches key with the rows of a list, one by one.
func (t *Table) walk(ctx context.Context, s table.Service, q *Query, key string) (found bool, err error) {
	var bad error
	err = t.list(ctx, q, func(r table.Row) bool {
		var m table.Matcher
		if m, bad = table.NewMatcher(s, r, t.delim); bad != nil {
			return false
		}
		found = m.Match(key)
		return !found
	})
	if err == nil && bad != nil {
		err = fmt.Errorf("%s: %w", q.Name, bad)
	}
	return found && err == nil, err
}

func (t *Table) list(ctx context.Context, q *Query, yield func(table.Row) bool) error {
	if err := t.ask.List(ctx, q, yield); err != nil {
		return fmt.Errorf("%s: %w", q.Name, err)
	}
	return nil
}

// Fetch returns the rows of the service's list.
func (t *Table) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	q := t.queries.fetch[s]
	if q == nil {
		return nil, t.unsupported("fetch_", s)
	}
	var rows []table.Row
	if err := t.list(ctx, q, func(r table.Row) bool {
		rows = append(rows, r)
		return true
	}); err != nil {
		return nil, err
	}
	return rows, nil
}

// Validate walks the entries that a service has to read.
func (t *Table) Validate(ctx context.Context, s table.Service) error {
	q := t.queries.fetch[s]
	if q == nil || s != table.NetAddr && s != table.Regex {
		return nil
	}
	var bad error
	err := t.list(ctx, q, func(r table.Row) bool {
		_, bad = table.NewMatcher(s, r, t.delim)
		return bad == nil
	})
	return errors.Join(err, bad)
}

// Authenticates reports whether there is a query for passwords.
func (t *Table) Authenticates(context.Context) (bool, error) {
	return t.queries.lookup[table.Auth] != nil, nil
}

// Authenticate asks query_auth with user and password. Its first row says yes by
// its column: 1, true, yes and the like.
func (t *Table) Authenticate(ctx context.Context, user, password string) (bool, error) {
	q := t.queries.lookup[table.Auth]
	if q == nil {
		return false, t.unsupported("query_", table.Auth)
	}
	if !isText(user) || !isText(password) || !q.asks(user) {
		return false, ctx.Err()
	}
	rows, err := t.ask.One(ctx, q, q.args(user, password))
	if err != nil {
		return false, fmt.Errorf("%s: %w", q.Name, err)
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
	return false, fmt.Errorf("%s: answers neither true nor false", q.Name)
}

// candidates returns the keys that an entry could be equal to.
func (t *Table) candidates(s table.Service, key string) []string {
	switch {
	case s == table.MailAddr:
		return table.MailAddrCandidates(key, t.delim)
	case s == table.Domain && !t.queries.Own:
		return table.DomainCandidates(key)
	case s == table.NetAddr && !t.queries.Own && strings.HasPrefix(key, "["):
		return []string{key, strings.Trim(key, "[]")}
	}
	return []string{key}
}

// walkQuery returns the query whose rows are matched one by one: the wildcards
// of our own schema, else the list that a configuration gave.
func (t *Table) walkQuery(s table.Service) *Query {
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
	if t.queries.Own {
		return fmt.Errorf("%w: the provisioning schema has nothing for %s%s", table.ErrUnsupported, prefix, s)
	}
	return fmt.Errorf("%w: no %s%s is configured", table.ErrUnsupported, prefix, s)
}
