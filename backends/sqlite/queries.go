package sqlite

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"tabard/table"
	"tabard/table/gather"
)

// query is one statement, checked and ready to prepare.
type query struct {
	name    string // as in a configuration: query_alias, fetch_source
	sql     string // every parameter is ?1
	columns []int  // how many columns the service can read
	many    bool   // all rows answer, as columns of one Row
	keyed   bool   // has a parameter

	text    string       // as it was written
	width   atomic.Int32 // columns, once known; -1: it cannot be asked for many keys
	waiting *gather.Gatherer[string, []table.Row]
	once    sync.Once
	set     *query // for many keys, made by once
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

// Tabard's own schema: migrations/sqlite/provision.
const (
	sqlAlias = `SELECT target FROM aliases WHERE address = ?1 ORDER BY id`
	// A label answers only where no user has its name, enabled or not.
	sqlCredentials = `SELECT name, password FROM users
WHERE name = ?1 AND enabled = 1 AND password <> ''
UNION ALL SELECT username, password FROM relay_credentials
WHERE label = ?1 AND NOT EXISTS (SELECT 1 FROM users WHERE name = ?1)`
	sqlUserInfo  = `SELECT uid, gid, home FROM users WHERE name = ?1 AND enabled = 1`
	sqlRelayHost = `SELECT url FROM relays WHERE match = ?1 ORDER BY priority, weight DESC, id`
	sqlAddrName  = `SELECT hostname FROM hostnames WHERE address IN (?1, trim(?1, '[]')) ORDER BY address LIMIT 1`
	sqlNetAddr   = `SELECT cidr FROM networks WHERE cidr IN (?1, trim(?1, '[]')) LIMIT 1`
	sqlCert      = `SELECT chain, key FROM certificates WHERE name = ?1 ORDER BY id`
	sqlDKIM      = `SELECT selector, key FROM dkim_keys WHERE domain = ?1 ORDER BY selector`
	sqlConfig    = `SELECT body FROM configs WHERE name = ?1 ORDER BY version DESC LIMIT 1`
)

// ownSchema returns the queries of Tabard's own schema. String, the service
// behind `match auth`, asks for user names.
func ownSchema() (*queries, error) {
	q := newQueries()
	q.builtin = true
	for s, text := range map[table.Service]string{
		table.Alias: sqlAlias, table.Credentials: sqlCredentials, table.UserInfo: sqlUserInfo,
		table.RelayHost: sqlRelayHost, table.AddrName: sqlAddrName, table.NetAddr: sqlNetAddr,
		table.Cert: sqlCert, table.DKIM: sqlDKIM, table.Config: sqlConfig,
		table.Domain:      `SELECT name FROM domains WHERE name = ?1`,
		table.MailAddr:    `SELECT address FROM addresses WHERE address = ?1`,
		table.MailAddrMap: `SELECT address FROM senders WHERE user = ?1 ORDER BY id`,
		table.Source:      `SELECT address FROM sources WHERE address = ?1`,
		table.String:      `SELECT name FROM users WHERE name = ?1 AND enabled = 1`,
		table.CA:          `SELECT pem FROM authorities WHERE name = ?1`,
		table.CertAuth:    `SELECT user FROM client_identities WHERE identity = ?1`,
		table.TLSPolicy:   `SELECT policy FROM tls_policies WHERE domain = ?1`,
	} {
		if err := q.set(s, "query_"+s.String(), text); err != nil {
			return nil, err
		}
	}
	for s, text := range map[table.Service]string{
		table.Source:    `SELECT address FROM sources ORDER BY address`,
		table.RelayHost: `SELECT url FROM relays WHERE match = '*' ORDER BY priority, weight DESC, id`,
		table.NetAddr:   `SELECT cidr FROM networks ORDER BY cidr`,
		table.Domain:    `SELECT name FROM domains ORDER BY name`,
		table.MailAddr:  `SELECT address FROM addresses ORDER BY address`,
	} {
		if err := q.set(s, "fetch_"+s.String(), text); err != nil {
			return nil, err
		}
	}
	q.walk[table.Domain] = &query{name: "walk_domain", columns: []int{1}, many: true,
		sql: `SELECT name FROM domains WHERE instr(name, '*') > 0`}
	q.walk[table.MailAddr] = &query{name: "walk_mailaddr", columns: []int{1}, many: true,
		sql: `SELECT address FROM addresses WHERE instr(address, '*') > 0`}
	return q, nil
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
	sql, params := numberParams(text, "?1")
	columns, many := shape(s)
	def := &query{name: name, sql: sql, text: text, columns: columns, many: many, keyed: true}
	if strings.HasPrefix(name, "fetch_") {
		if params > 0 {
			return fmt.Errorf("%s: must not have a parameter", name)
		}
		// A list has one text per row, whatever a look-up of the service has.
		def.columns, def.many, def.keyed = []int{1}, true, false
		q.fetch[s] = def
		return nil
	}
	if params == 0 {
		return fmt.Errorf("%s: needs a parameter for the key, as in WHERE name = ?", name)
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

// numberParams writes every parameter of a statement (?, ?2, :name, @name, $1)
// as param, because there is one value only: the key. It returns how many there
// are. Strings, quoted names and comments are left alone.
func numberParams(sql, param string) (string, int) {
	var b strings.Builder
	n := 0
	for i := 0; i < len(sql); {
		if skip := quotedLen(sql[i:]); skip > 0 {
			b.WriteString(sql[i : i+skip])
			i += skip
			continue
		}
		if size := paramLen(sql[i:]); size > 0 {
			b.WriteString(param)
			n++
			i += size
			continue
		}
		if size := wordLen(sql[i:]); size > 0 {
			b.WriteString(sql[i : i+size])
			i += size
			continue
		}
		b.WriteByte(sql[i])
		i++
	}
	return b.String(), n
}

// quotedLen returns the length of the string, quoted name or comment that s
// begins with, or 0.
func quotedLen(s string) int {
	end := func(from int, close string) int {
		if i := strings.Index(s[from:], close); i >= 0 {
			return from + i + len(close)
		}
		return len(s)
	}
	switch {
	case s[0] == '\'' || s[0] == '"' || s[0] == '`':
		// A doubled quote reads as two strings, which ends at the same place.
		return end(1, s[:1])
	case s[0] == '[':
		return end(1, "]")
	case strings.HasPrefix(s, "--"):
		return end(2, "\n")
	case strings.HasPrefix(s, "/*"):
		return end(2, "*/")
	}
	return 0
}

// paramLen returns the length of the parameter that s begins with, or 0.
func paramLen(s string) int {
	switch s[0] {
	case '?':
		return 1 + len(s[1:]) - len(strings.TrimLeft(s[1:], "0123456789"))
	case ':', '@', '$':
		if n := wordLen(s[1:]); n > 0 {
			return 1 + n
		}
	}
	return 0
}

// wordLen returns the length of the name or number that s begins with.
func wordLen(s string) int {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && c < 0x80 && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return i
		}
	}
	return len(s)
}
