package sqltable

import (
	"fmt"
	"strings"

	"tabard/table"
)

// The queries of Tabard's own schema: migrations/*/provision. fold(column) is a
// column whose case does not count, find(text, what) a place in a text: dialects
// write them differently, and their indexes are on what they write.
const (
	ownAlias = `SELECT target FROM aliases WHERE fold(address) = {key} ORDER BY id`
	// A label answers only where no user has its name, enabled or not.
	ownCredentials = `SELECT name, password FROM users
WHERE fold(name) = {key} AND enabled = TRUE AND password <> ''
UNION ALL SELECT username, password FROM relay_credentials
WHERE fold(label) = {key} AND NOT EXISTS (SELECT 1 FROM users WHERE fold(name) = {key})`
	ownUserInfo  = `SELECT uid, gid, home FROM users WHERE fold(name) = {key} AND enabled = TRUE`
	ownRelayHost = `SELECT url, priority, weight FROM relays WHERE fold(match) = {key} ORDER BY priority, weight DESC, id`
	ownAddrName  = `SELECT hostname FROM hostnames WHERE fold(address) IN ({key}, trim({key}, '[]')) ORDER BY address LIMIT 1`
	ownNetAddr   = `SELECT cidr FROM networks WHERE fold(cidr) IN ({key}, trim({key}, '[]')) LIMIT 1`
	ownCert      = `SELECT chain, key FROM certificates WHERE fold(name) = {key} ORDER BY id`
	// A certificate may be of a user who has no row; a disabled one stays out.
	ownCertAuth = `SELECT "user" FROM client_identities WHERE fold(identity) = {key}
AND NOT EXISTS (SELECT 1 FROM users WHERE fold(name) = fold("user") AND enabled = FALSE)`
	ownDKIM   = `SELECT selector, key FROM dkim_keys WHERE fold(domain) = {key} ORDER BY selector`
	ownConfig = `SELECT body FROM configs WHERE fold(name) = {key} ORDER BY version DESC LIMIT 1`
)

// ownLookups answer one key. String, the service behind `match auth`, asks for
// user names.
func ownLookups() map[table.Service]string {
	return map[table.Service]string{
		table.Alias: ownAlias, table.Credentials: ownCredentials, table.UserInfo: ownUserInfo,
		table.RelayHost: ownRelayHost, table.AddrName: ownAddrName, table.NetAddr: ownNetAddr,
		table.Cert: ownCert, table.DKIM: ownDKIM, table.Config: ownConfig,
		table.Domain:      `SELECT name FROM domains WHERE fold(name) = {key}`,
		table.MailAddr:    `SELECT address FROM addresses WHERE fold(address) = {key}`,
		table.MailAddrMap: `SELECT address FROM senders WHERE fold("user") = {key} ORDER BY id`,
		table.Source:      `SELECT address FROM sources WHERE fold(address) = {key}`,
		table.String:      `SELECT name FROM users WHERE fold(name) = {key} AND enabled = TRUE`,
		table.CA:          `SELECT pem FROM authorities WHERE fold(name) = {key}`,
		table.CertAuth:    ownCertAuth,
		table.TLSPolicy:   `SELECT policy FROM tls_policies WHERE fold(domain) = {key}`,
	}
}

func ownLists() map[table.Service]string {
	return map[table.Service]string{
		table.Source:    `SELECT address FROM sources ORDER BY address`,
		table.RelayHost: `SELECT url, priority, weight FROM relays WHERE match = '*' ORDER BY priority, weight DESC, id`,
		table.NetAddr:   `SELECT cidr FROM networks ORDER BY cidr`,
		table.Domain:    `SELECT name FROM domains ORDER BY name`,
		table.MailAddr:  `SELECT address FROM addresses ORDER BY address`,
	}
}

func ownWalks() map[table.Service]string {
	return map[table.Service]string{
		table.Domain:   `SELECT name FROM domains WHERE find(name, '*') > 0`,
		table.MailAddr: `SELECT address FROM addresses WHERE find(address, '*') > 0`,
	}
}

// OwnSchema returns the queries of Tabard's own schema.
func OwnSchema(d Dialect) (*Queries, error) {
	q := NewQueries(d)
	q.Own = true
	write := strings.NewReplacer("fold(", d.Fold+"(", "find(", d.Find+"(")
	for prefix, texts := range map[string]map[table.Service]string{"query_": ownLookups(), "fetch_": ownLists()} {
		for s, text := range texts {
			if err := q.Set(prefix+s.String(), write.Replace(text), ""); err != nil {
				return nil, fmt.Errorf("own schema: %w", err)
			}
		}
	}
	for s, text := range ownWalks() {
		def, err := d.list(write.Replace(text))
		if err != nil {
			return nil, fmt.Errorf("own schema: walk_%s: %w", s, err)
		}
		def.Name = "walk_" + s.String()
		q.walk[s] = def
	}
	return q, nil
}
