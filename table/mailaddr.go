package table

import (
	"errors"
	"fmt"
	"strings"

	"tabard/internal/address"
)

// MailPattern is an entry of service mailaddr, or of a mailaddrmap answer:
// "user" at any domain, "@domain" for every user there, "user@domain", or "@"
// for everything.
type MailPattern struct {
	User   string
	Domain string // may hold wildcards, see MatchDomain
}

// ParseMailPattern cuts an entry at its last '@'. Every text is an entry.
func ParseMailPattern(s string) MailPattern {
	user, domain := address.Split(s)
	return MailPattern{User: user, Domain: domain}
}

// String returns the entry as it is written.
func (p MailPattern) String() string {
	if p.Domain == "" && p.User != "" && !strings.Contains(p.User, "@") {
		return p.User
	}
	return p.User + "@" + p.Domain
}

// Matches reports whether an envelope address ("@" or empty for the null
// reverse-path) matches, without regard to case. The address's +tag is ignored
// unless the entry's user holds the delimiter.
func (p MailPattern) Matches(addr, delim string) bool {
	if p.User == "" && p.Domain == "" {
		return true
	}
	user, domain := address.Split(addr)
	if p.Domain != "" && !MatchDomain(domain, p.Domain) {
		return false
	}
	if p.User == "" {
		return true
	}
	if delim == "" || !strings.Contains(p.User, delim) {
		user, _ = address.SplitTag(user, delim)
	}
	return Fold(user) == Fold(p.User)
}

// MatchAnyMail reports whether one of the patterns matches.
func MatchAnyMail(patterns []MailPattern, addr, delim string) bool {
	for _, p := range patterns {
		if p.Matches(addr, delim) {
			return true
		}
	}
	return false
}

// MailAddrCandidates returns the exact entries without wildcards that match an
// address, most specific first: "user+tag@domain", "user@domain", "@domain",
// "user+tag", "user", "@".
func MailAddrCandidates(addr, delim string) []string {
	var keys []string
	for _, p := range matchingPatterns(addr, delim) {
		keys = append(keys, p.String())
	}
	return keys
}

// matchingPatterns returns the patterns without wildcards that match addr.
func matchingPatterns(addr, delim string) []MailPattern {
	user, domain := address.Split(addr)
	var users []string
	if user != "" {
		users = AliasKeys(user, delim)
	}
	var out []MailPattern
	if domain != "" {
		for _, u := range users {
			out = append(out, MailPattern{u, domain})
		}
		out = append(out, MailPattern{"", domain})
	}
	for _, u := range users {
		out = append(out, MailPattern{u, ""})
	}
	return append(out, MailPattern{})
}

// ParseMailAddrs reads a mailaddrmap answer: comma lists in any number of
// columns.
func ParseMailAddrs(row Row) ([]MailPattern, error) {
	var out []MailPattern
	for _, text := range listOf(row) {
		if strings.ContainsAny(text, " \t\x00\r\n") {
			return nil, fmt.Errorf("mailaddrmap: %q is not an address", text)
		}
		out = append(out, ParseMailPattern(text))
	}
	if len(out) == 0 {
		return nil, errors.New("mailaddrmap: no address in the answer")
	}
	return out, nil
}

// listOf flattens columns that hold comma lists; blank elements are skipped.
func listOf(row Row) []string {
	var out []string
	for _, col := range row {
		for e := range strings.SplitSeq(col, ",") {
			if e = strings.TrimSpace(e); e != "" {
				out = append(out, e)
			}
		}
	}
	return out
}
