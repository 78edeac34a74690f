// Package ldap answers from directories: LDAP version 3 (RFC 4511) over TCP, TLS
// or a UNIX socket, through filters in a configuration file with the keys of
// OpenSMTPD's table-ldap, or by a URL from the schemas that every directory
// knows. It keeps no answers.
//
// A directory that is away, slow or refuses to be bound to is a temporary error,
// and heals by itself.
package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-ldap/ldap/v3"

	"tabard/internal/config"
	"tabard/table"
)

// Table is a directory that answers by searches.
type Table struct {
	set    *settings
	delim  string
	search *searcher
	schema *schema
	binder *binder
	asks   map[*query]*asker
	closed atomic.Bool
}

var (
	_ table.Backend       = (*Table)(nil)
	_ table.Pinger        = (*Table)(nil)
	_ table.Validator     = (*Table)(nil)
	_ table.Watcher       = (*Table)(nil)
	_ table.Authenticator = (*Table)(nil)
)

// Open reads the configuration file or the URL. No server is asked before the
// first question, so that one that is down does not keep Tabard from starting.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	var set *settings
	var err error
	switch {
	case strings.Contains(c.Source, "://"):
		set, err = parseURL(c.Source, c.Name)
	case c.Source == "":
		err = errors.New("no path given")
	default:
		set, err = readConf(c.Source, c.Name)
	}
	if err == nil {
		err = set.load()
	}
	if err != nil {
		return nil, err
	}
	d := newDialer(set)
	t := &Table{set: set, delim: o.Delimiter(), schema: d.schema, binder: newBinder(d), asks: make(map[*query]*asker)}
	t.search = &searcher{set: set, pool: newPool(d)}
	for _, q := range set.queries() {
		t.asks[q] = newAsker(t, q)
	}
	return t, nil
}

// Lookup returns what the service's attributes hold in the entries that its
// filter finds for key.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	q := t.set.lookup[s]
	if q == nil {
		return nil, unsupported("", s)
	}
	row, err := t.lookup(ctx, q, key)
	if errors.Is(err, table.ErrNotFound) {
		if herr := t.hopeless(ctx, q); herr != nil {
			return nil, herr
		}
		return nil, table.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("%s_filter: %w", q.name, err)
	}
	return row, nil
}

func (t *Table) lookup(ctx context.Context, q *query, key string) (table.Row, error) {
	entries, err := t.asks[q].entries(ctx, key)
	if err != nil {
		return nil, err
	}
	var members []string
	if q.service == table.Alias {
		if members, err = t.allMembers(ctx, entries, key); err != nil {
			return nil, err
		}
	}
	if len(entries)+len(members) == 0 {
		return nil, table.ErrNotFound
	}
	switch {
	case q.service == table.Cert:
		return t.set.certRow(entries)
	case q.service == table.CA:
		return t.set.caRow(entries)
	case len(q.attrs) == 0 && q.service != table.Alias:
		return table.Row{key}, nil
	}
	return q.row(entries, members)
}

// allMembers returns what members give: of the groups that were found, and those
// that say themselves that they are in the group called key.
func (t *Table) allMembers(ctx context.Context, entries []*ldap.Entry, key string) ([]string, error) {
	var all []string
	if t.set.groups.follows() {
		values, err := t.members(ctx, entries)
		if err != nil {
			return nil, err
		}
		all = values
	}
	if t.set.members == nil {
		return all, nil
	}
	found, err := t.asks[t.set.members].entries(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("alias_members_filter: %w", err)
	}
	for _, e := range found {
		for _, a := range t.set.members.attrs {
			values, err := textValues(e, a)
			if err != nil {
				return nil, err
			}
			all = append(all, values...)
		}
	}
	return all, nil
}

// Check reports whether key is in the table. Candidates for an exact match are
// asked first; what only matching can find is walked after that.
func (t *Table) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	q, list := t.set.lookup[s], t.set.fetch[s]
	if !table.Walked(s) {
		list = nil
	}
	if q == nil && list == nil {
		return false, unsupported("", s)
	}
	if q != nil {
		ok, err := t.asks[q].exists(ctx, t.candidates(s, key))
		if err != nil {
			return false, fmt.Errorf("%s_filter: %w", q.name, err)
		}
		if !ok && s == table.Alias && t.set.members != nil {
			ok, err = t.asks[t.set.members].exists(ctx, []string{key})
		}
		if ok || err != nil {
			return ok, err
		}
		if err := t.hopeless(ctx, q); err != nil {
			return false, err
		}
	}
	if list == nil {
		return false, t.open()
	}
	m, err := t.matcher(ctx, list)
	if err != nil {
		return false, err
	}
	return m.Match(key), nil
}

// open is the error of a table that was closed.
func (t *Table) open() error {
	if t.closed.Load() {
		return errClosed
	}
	return nil
}

// Fetch returns the values of the service's list, sorted: a directory keeps
// them in no order.
func (t *Table) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	q := t.set.fetch[s]
	if q == nil {
		return nil, unsupported("fetch_", s)
	}
	values, err := t.list(ctx, q)
	if err != nil {
		return nil, err
	}
	rows := make([]table.Row, len(values))
	for i, v := range values {
		rows[i] = table.Row{v}
	}
	return rows, nil
}

func (t *Table) list(ctx context.Context, q *query) ([]string, error) {
	f, _ := q.filter.expand("")
	entries, err := t.search.search(ctx, &request{base: q.base, scope: q.scope, filter: f, attrs: q.attrs, limit: maxListed})
	if err != nil {
		return nil, fmt.Errorf("%s_filter: %w", q.name, err)
	}
	var all []string
	for _, e := range entries {
		for _, a := range q.attrs {
			values, err := textValues(e, a)
			if err != nil {
				return nil, fmt.Errorf("%s_filter: %w", q.name, err)
			}
			for _, v := range values {
				all = append(all, q.formatted(v))
			}
		}
	}
	if len(all) == 0 {
		return nil, t.hopeless(ctx, q)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (t *Table) matcher(ctx context.Context, q *query) (table.Matcher, error) {
	values, err := t.list(ctx, q)
	if err != nil {
		return nil, err
	}
	m, err := table.NewMatcher(q.service, values, t.delim)
	if err != nil {
		return nil, fmt.Errorf("%s_filter: %w", q.name, err)
	}
	return m, nil
}

// Validate walks the entries that a service has to read.
func (t *Table) Validate(ctx context.Context, s table.Service) error {
	q := t.set.fetch[s]
	if q == nil || s != table.NetAddr && s != table.Regex {
		return nil
	}
	_, err := t.matcher(ctx, q)
	return err
}

// Close closes the connections.
func (t *Table) Close() error {
	t.closed.Store(true)
	t.search.pool.close()
	t.binder.close()
	return nil
}

// hopeless says why nothing was found, when that lies in the configuration.
func (t *Table) hopeless(ctx context.Context, q *query) error {
	err := t.schema.hopeless(q, t.set.groups)
	if err == nil || t.schema.fresh() {
		return err
	}
	c, cerr := t.search.pool.get(ctx)
	if cerr != nil {
		return cerr
	}
	t.schema.look(ctx, c)
	t.search.pool.put(c)
	return t.schema.hopeless(q, t.set.groups)
}

// candidates returns the keys that an entry could be equal to.
func (t *Table) candidates(s table.Service, key string) []string {
	switch {
	case s == table.MailAddr:
		return table.MailAddrCandidates(key, t.delim)
	case s == table.Domain:
		return table.DomainCandidates(key)
	case s == table.NetAddr && strings.HasPrefix(key, "["):
		return []string{key, strings.Trim(key, "[]")}
	}
	return []string{key}
}

func unsupported(prefix string, s table.Service) error {
	return fmt.Errorf("%w: no %s%s_filter is configured", table.ErrUnsupported, prefix, s)
}

// want returns the attributes to ask for.
func (t *Table) want(q *query) []string {
	attrs := q.attrs
	if q == t.set.lookup[table.Alias] {
		attrs = slices.Concat(attrs, t.set.groups.naming())
	}
	return attrs
}
