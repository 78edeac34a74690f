package ldap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"tabard/table"
)

// rawValues returns the values of an attribute, whatever its options.
func rawValues(e *ldap.Entry, attr string) []string {
	var all []string
	for _, a := range e.Attributes {
		switch {
		case !strings.EqualFold(baseName(a.Name), baseName(attr)):
		case all == nil:
			all = slices.Clip(a.Values)
		default:
			all = append(all, a.Values...)
		}
	}
	return all
}

// textValues returns the values of an attribute as text, which may be kept: it does
// not hold on to the message that it came in.
func textValues(e *ldap.Entry, attr string) ([]string, error) {
	var all []string
	for _, v := range rawValues(e, attr) {
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("%s: %s is not UTF-8 text", e.DN, attr)
		}
		if strings.ContainsRune(v, 0) {
			return nil, fmt.Errorf("%s: %s has a NUL character", e.DN, attr)
		}
		if v, ok := mailValue(attr, v); ok {
			all = append(all, strings.Clone(v))
		}
	}
	return all, nil
}

// mailValue takes "smtp:" off the addresses of Active Directory and Exchange,
// and leaves out what is no mail address there.
func mailValue(attr, v string) (string, bool) {
	name := strings.ToLower(baseName(attr))
	if name != "proxyaddresses" && name != "targetaddress" {
		return v, true
	}
	if kind, rest, ok := strings.Cut(v, ":"); ok {
		return rest, strings.EqualFold(kind, "smtp")
	}
	return v, true
}

// row makes a service's answer from entries. extra are values of an alias that
// come from members.
func (q *query) row(entries []*ldap.Entry, extra []string) (table.Row, error) {
	switch q.service {
	case table.Alias, table.MailAddrMap, table.RelayHost:
		return q.all(entries, extra)
	case table.Credentials:
		return firstRow(entries, q.credentials)
	case table.UserInfo:
		return firstRow(entries, q.columns)
	case table.DKIM:
		if len(q.attrs) == 1 {
			return q.all(entries, nil)
		}
		return q.pairs(entries)
	}
	if len(q.attrs) == 0 {
		return nil, errors.New("no attributes are configured")
	}
	return firstRow(entries, func(e *ldap.Entry) (table.Row, error) {
		row, err := q.columns(e)
		if err == nil && row[0] == "" {
			return nil, nil
		}
		return row, err
	})
}

// firstRow returns the row of the first entry that has one.
func firstRow(entries []*ldap.Entry, make func(*ldap.Entry) (table.Row, error)) (table.Row, error) {
	for _, e := range entries {
		if row, err := make(e); row != nil || err != nil {
			return row, err
		}
	}
	return nil, table.ErrNotFound
}

// all joins the values of all entries.
func (q *query) all(entries []*ldap.Entry, extra []string) (table.Row, error) {
	row := table.Row(extra)
	for _, e := range entries {
		for _, a := range q.attrs {
			values, err := textValues(e, a)
			if err != nil {
				return nil, err
			}
			for _, v := range values {
				row = append(row, q.formatted(v))
			}
		}
	}
	if len(row) == 0 {
		return nil, table.ErrNotFound
	}
	if len(row) > maxValues {
		return nil, errTooLarge
	}
	return row, nil
}

// pairs returns the columns of every entry that has all of them.
func (q *query) pairs(entries []*ldap.Entry) (table.Row, error) {
	var row table.Row
	for _, e := range entries {
		columns, err := q.columns(e)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(columns, "") {
			row = append(row, columns...)
		}
	}
	if row == nil {
		return nil, table.ErrNotFound
	}
	return row, nil
}

// formatted fills a value into the query's format.
func (q *query) formatted(v string) string {
	if q.service == table.RelayHost {
		v = nextHop(v)
	}
	if q.format == nil || v == "" {
		return v
	}
	s, ok := q.format.fill(v, func(s string) string { return s })
	if !ok {
		return v
	}
	return s
}

// nextHop takes the brackets off a host name, which Postfix has around it to keep
// it from asking for MX records. Those around an IP address stay.
func nextHop(v string) string {
	host, rest, ok := strings.Cut(strings.TrimPrefix(v, "["), "]")
	if !ok || v[0] != '[' || strings.ContainsRune(host, ':') {
		return v
	}
	return host + rest
}

// columns returns the first value of each attribute.
func (q *query) columns(e *ldap.Entry) (table.Row, error) {
	row := make(table.Row, len(q.attrs))
	for i, a := range q.attrs {
		values, err := textValues(e, a)
		if err != nil {
			return nil, err
		}
		if len(values) > 0 {
			row[i] = q.formatted(values[0])
		}
	}
	return row, nil
}

// credentials returns user and password; an entry without password has none.
func (q *query) credentials(e *ldap.Entry) (table.Row, error) {
	row, err := q.columns(e)
	if err != nil {
		return nil, err
	}
	passwords, err := textValues(e, q.attrs[1])
	if err != nil || len(passwords) == 0 {
		return nil, err
	}
	row[1] = q.formatted(slices.MinFunc(passwords, func(a, b string) int { return weakness(a) - weakness(b) }))
	return row, nil
}

// strength lists how stored passwords begin, those that take longest to guess
// first.
var strength = []string{"argon2", "$y$", "yescrypt", "$2", "blf-crypt", "bcrypt", "scram-sha", "pbkdf2", "$6$", "sha512-crypt", "$5$", "sha256-crypt", "{ssha512", "{ssha256", "{crypt", "{ssha", "$1$", "{smd5", "{sha", "{md5"}

// weakness orders the values of a userPassword that has several: hashes before
// clear text, and what a client cannot verify last.
func weakness(stored string) int {
	s := strings.ToLower(stored[:min(len(stored), 40)])
	for _, elsewhere := range []string{"{sasl}", "{kerberos}", "!", "*"} {
		if strings.HasPrefix(s, elsewhere) {
			return len(strength) + 2
		}
	}
	for i, mark := range strength {
		if strings.HasPrefix(s, mark) || strings.HasPrefix(s, "{") && strings.Contains(s, mark) {
			return i
		}
	}
	return len(strength) + 1
}
