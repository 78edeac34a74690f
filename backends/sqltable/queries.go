package sqltable

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tabard/table"
)

// Queries are what a table asks its database.
type Queries struct {
	// Own says that they are those of Tabard's own schema.
	Own bool

	dialect Dialect
	lookup  map[table.Service]*Query
	fetch   map[table.Service]*Query
	// walk selects what only matching can find, after equality found nothing:
	// wildcards of Tabard's own schema.
	walk map[table.Service]*Query
}

// NewQueries returns no queries yet.
func NewQueries(d Dialect) *Queries {
	return &Queries{
		dialect: d,
		lookup:  make(map[table.Service]*Query),
		fetch:   make(map[table.Service]*Query),
		walk:    make(map[table.Service]*Query),
	}
}

// Empty reports whether there is no query.
func (q *Queries) Empty() bool { return len(q.lookup)+len(q.fetch) == 0 }

// Of returns the query for a key of service s, or nil.
func (q *Queries) Of(s table.Service) *Query { return q.lookup[s] }

// List returns the query for the list of service s, or nil.
func (q *Queries) List(s table.Service) *Query { return q.fetch[s] }

// All returns every query.
func (q *Queries) All() []*Query {
	var all []*Query
	for _, s := range table.Services() {
		for _, m := range []map[table.Service]*Query{q.lookup, q.fetch, q.walk} {
			if def := m[s]; def != nil {
				all = append(all, def)
			}
		}
	}
	return all
}

// Set reads a line of a configuration: query_SERVICE or fetch_SERVICE, and the keys
// of OpenSMTPD that say how long a list is kept. others names the keys that the
// kind of table knows besides, for the error about one that nobody knows.
func (q *Queries) Set(key, value, others string) error {
	switch key {
	case "fetch_source_expire", "fetch_source_refresh":
		// Ours is asked each time.
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return fmt.Errorf("%s: %q is not a number", key, value)
		}
		return nil
	}
	prefix, service, _ := strings.Cut(key, "_")
	s, err := table.ParseService(service)
	var def *Query
	switch {
	case err == nil && prefix == "query":
		if def, err = q.dialect.lookup(s, value); err == nil {
			q.lookup[s] = def
		}
	case err == nil && prefix == "fetch" && s != table.Auth:
		if def, err = q.dialect.list(value); err == nil {
			if s == table.RelayHost {
				def.columns, _ = shape(s)
			}
			q.fetch[s] = def
		}
	default:
		return fmt.Errorf("unknown key %q; expected %s, query_SERVICE or fetch_SERVICE", key, others)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	def.Name = key
	return nil
}

// query reads a statement.
func (d Dialect) query(sql string, auth bool) (*Query, error) {
	st, err := d.parse(sql, auth)
	if err != nil {
		return nil, err
	}
	def := &Query{statement: st, Parts: st.parts()}
	def.whole = slices.Equal(def.Parts, []Part{Key})
	def.SQL = st.with(func(p Part) string { return d.Mark + strconv.Itoa(1+slices.Index(def.Parts, p)) })
	return def, nil
}

// lookup reads the statement that answers one key of a service.
func (d Dialect) lookup(s table.Service, sql string) (*Query, error) {
	def, err := d.query(sql, s == table.Auth)
	if err != nil {
		return nil, err
	}
	def.columns, def.Many = shape(s)
	switch {
	case s == table.Auth && (len(def.Parts) < 2 || !def.Secret()):
		return nil, fmt.Errorf("needs %s for the user and %s for the password, or {key} and {password}", d.Mark+"1", d.Mark+"2")
	case len(def.Parts) > 0:
		return def, nil
	case strings.Contains(sql, "%s") || strings.Contains(sql, "%u") || strings.Contains(sql, "%d"):
		return nil, errors.New("needs a parameter for the key: write {key}, {user}, {domain} for Postfix' '%s', '%u', '%d', without quotes")
	}
	return nil, errors.New("needs a parameter for the key outside of quotes, as in WHERE name = {key}")
}

// list reads a statement that has no parameter. It has one text per row, whatever
// a look-up of the service has.
func (d Dialect) list(sql string) (*Query, error) {
	def, err := d.query(sql, false)
	if err != nil {
		return nil, err
	}
	if len(def.Parts) > 0 {
		return nil, errors.New("must not have a parameter")
	}
	def.columns, def.Many = []int{1}, true
	return def, nil
}
