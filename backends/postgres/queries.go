package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/table"
	"tabard/table/gather"
)

// Bounds of one answer.
const (
	maxRows  = 10000
	maxBytes = 16 << 20
)

// query is one statement, checked and ready to be prepared.
type query struct {
	name     string // as in a configuration: query_alias, fetch_source
	sql      string
	template template
	columns  []int // how many columns the service can read
	many     bool  // all rows answer, as columns of one Row
	params   int   // 0: a list; 1: the key; 2: user and password
	waiting  *gather.Gatherer[string, []table.Row]
}

// fits reports whether a query selects what its service can read.
func (q *query) fits(n int) error {
	if slices.Contains(q.columns, n) {
		return nil
	}
	_, service, _ := strings.Cut(q.name, "_")
	return fmt.Errorf("selects %d columns, %s needs %d", n, service, q.columns[0])
}

func (q *query) budget() budget {
	if q.params == 0 {
		return budget{100 * maxRows, maxBytes}
	}
	return budget{maxRows, maxBytes}
}

// budget bounds an answer.
type budget struct{ rowsLeft, bytesLeft int }

func (b *budget) spend(row table.Row) error {
	b.rowsLeft--
	for _, c := range row {
		b.bytesLeft -= len(c)
	}
	if b.rowsLeft < 0 || b.bytesLeft < 0 {
		return errors.New("answer is too large")
	}
	return nil
}

// queries are what a table asks its database.
type queries struct {
	builtin bool
	lookup  map[table.Service]*query
	fetch   map[table.Service]*query
	// walk selects what only matching can find, after equality found nothing:
	// wildcards of Tabard's own schema.
	walk map[table.Service]*query
}

// shape says how many columns a service's answers may have, and whether several
// rows answer one key.
func shape(s table.Service) (columns []int, many bool) {
	switch s {
	case table.Credentials:
		return []int{2, 1}, false
	case table.UserInfo:
		return []int{3, 1}, false
	case table.Cert, table.DKIM:
		return []int{2, 1}, true
	case table.Alias, table.MailAddrMap, table.RelayHost, table.CA:
		return []int{1}, true
	}
	return []int{1}, false
}

func newQueries() *queries {
	return &queries{
		lookup: make(map[table.Service]*query),
		fetch:  make(map[table.Service]*query),
		walk:   make(map[table.Service]*query),
	}
}

// set adds the query called query_SERVICE or fetch_SERVICE.
func (q *queries) set(s table.Service, name, text string) error {
	t, err := parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	def := &query{name: name, sql: t.with(func(n int) string { return fmt.Sprint("$", n) }), template: t}
	def.columns, def.many = shape(s)
	for _, n := range t.params {
		def.params = max(def.params, n)
	}
	if strings.HasPrefix(name, "fetch_") {
		if def.params > 0 {
			return fmt.Errorf("%s: must not have a parameter", name)
		}
		// A list has one text per row, whatever a look-up of the service has.
		def.columns, def.many = []int{1}, true
		q.fetch[s] = def
		return nil
	}
	want := 1
	if s == table.Auth {
		want = 2
		if !slices.Contains(t.params, 1) || !slices.Contains(t.params, 2) {
			return fmt.Errorf("%s: needs $1 for the user and $2 for the password", name)
		}
	}
	switch {
	case def.params == 0:
		return fmt.Errorf("%s: needs a parameter for the key, as in WHERE name = $1", name)
	case def.params > want:
		return fmt.Errorf("%s: parameter $%d: only $%d is known", name, def.params, want)
	}
	q.lookup[s] = def
	return nil
}

// all returns every query, for Ping.
func (q *queries) all() []*query {
	var out []*query
	for _, s := range table.Services() {
		for _, m := range []map[table.Service]*query{q.lookup, q.fetch, q.walk} {
			if def := m[s]; def != nil {
				out = append(out, def)
			}
		}
	}
	return out
}

// ownSchema returns the queries of Tabard's own schema. String, the service
// behind `match auth`, asks for user names.
func ownSchema() (*queries, error) {
	q := newQueries()
	q.builtin = true
	for s, text := range map[table.Service]string{
		table.Alias: sqlAlias, table.Credentials: sqlCredentials, table.UserInfo: sqlUserInfo,
		table.RelayHost: sqlRelayHost, table.AddrName: sqlAddrName, table.NetAddr: sqlNetAddr,
		table.Cert: sqlCert, table.DKIM: sqlDKIM, table.Config: sqlConfig, table.Domain: sqlDomain,
		table.MailAddr: sqlMailAddr, table.MailAddrMap: sqlMailAddrMap, table.Source: sqlSource,
		table.String: sqlString, table.CA: sqlCA, table.CertAuth: sqlCertAuth, table.TLSPolicy: sqlTLSPolicy,
	} {
		if err := q.set(s, "query_"+s.String(), text); err != nil {
			return nil, err
		}
	}
	for s, text := range map[table.Service]string{
		table.Source: sqlSources, table.RelayHost: sqlRelays, table.NetAddr: sqlNetworks,
		table.Domain: sqlDomains, table.MailAddr: sqlAddresses,
	} {
		if err := q.set(s, "fetch_"+s.String(), text); err != nil {
			return nil, err
		}
	}
	for s, text := range map[table.Service]string{table.Domain: sqlDomainWildcards, table.MailAddr: sqlAddrWildcards} {
		q.walk[s] = &query{name: "walk_" + s.String(), sql: text, columns: []int{1}, many: true}
	}
	return q, nil
}
