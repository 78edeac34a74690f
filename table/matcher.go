package table

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// Walked reports whether a service is matched by rules, not by equality of the
// key alone.
func Walked(s Service) bool {
	switch s {
	case Domain, NetAddr, MailAddr, Regex:
		return true
	}
	return false
}

// Matcher is a list of entries, prepared for the questions of one service. It
// does not change and is safe for concurrent use. Only what cannot be found by
// equality is walked.
type Matcher interface {
	// Match reports whether key matches an entry.
	Match(key string) bool
}

// NewMatcher prepares entries for a service: wildcards for domain, CIDR for
// netaddr, parts for mailaddr, patterns for regex, equality in lower case for
// every other service. The first entry that the service cannot read is an error.
func NewMatcher(s Service, entries []string, delim string) (Matcher, error) {
	switch s {
	case Domain:
		return newDomainMatcher(entries), nil
	case NetAddr:
		return newNetMatcher(entries)
	case MailAddr:
		return newMailMatcher(entries, delim), nil
	case Regex:
		return newRegexMatcher(entries)
	}
	return newSet(entries), nil
}

type set map[string]struct{}

func newSet(entries []string) set {
	m := make(set, len(entries))
	for _, e := range entries {
		m[Fold(e)] = struct{}{}
	}
	return m
}

func (m set) Match(key string) bool {
	_, ok := m[Fold(key)]
	return ok
}

type domainMatcher struct {
	exact set
	wild  []string
}

func newDomainMatcher(entries []string) domainMatcher {
	m := domainMatcher{exact: make(set, len(entries))}
	for _, e := range entries {
		e = Fold(e)
		if HasWildcard(e) {
			m.wild = append(m.wild, e)
		} else {
			m.exact[e] = struct{}{}
		}
	}
	return m
}

func (m domainMatcher) Match(key string) bool {
	return m.exact.Match(key) || slices.ContainsFunc(m.wild, func(p string) bool { return MatchDomain(key, p) })
}

type mailMatcher struct {
	delim string
	exact map[MailPattern]struct{}
	wild  []MailPattern
}

func newMailMatcher(entries []string, delim string) mailMatcher {
	m := mailMatcher{delim: delim, exact: make(map[MailPattern]struct{}, len(entries))}
	for _, e := range entries {
		p := ParseMailPattern(Fold(e))
		if HasWildcard(p.Domain) {
			m.wild = append(m.wild, p)
		} else {
			m.exact[p] = struct{}{}
		}
	}
	return m
}

func (m mailMatcher) Match(key string) bool {
	for _, k := range matchingPatterns(Fold(key), m.delim) {
		if _, ok := m.exact[k]; ok {
			return true
		}
	}
	return MatchAnyMail(m.wild, key, m.delim)
}

type netMatcher struct {
	local    bool
	prefixes map[netip.Prefix]struct{}
	v4, v6   []int // lengths in use
}

func newNetMatcher(entries []string) (*netMatcher, error) {
	m := &netMatcher{prefixes: make(map[netip.Prefix]struct{}, len(entries))}
	for _, e := range entries {
		n, err := ParseNetAddr(e)
		if err != nil {
			return nil, err
		}
		if n.Local {
			m.local = true
			continue
		}
		m.prefixes[n.Prefix] = struct{}{}
		lengths := &m.v6
		if n.Prefix.Addr().Is4() {
			lengths = &m.v4
		}
		if !slices.Contains(*lengths, n.Prefix.Bits()) {
			*lengths = append(*lengths, n.Prefix.Bits())
		}
	}
	return m, nil
}

func (m *netMatcher) Match(key string) bool {
	if Fold(key) == LocalKey {
		return m.local
	}
	ip, err := ParseIP(key)
	if err != nil {
		return false
	}
	lengths := m.v6
	if ip.Is4() {
		lengths = m.v4
	}
	for _, n := range lengths {
		p, err := ip.Prefix(n)
		if err != nil {
			continue
		}
		if _, ok := m.prefixes[p]; ok {
			return true
		}
	}
	return false
}

type regexMatcher []*regexp.Regexp

func newRegexMatcher(entries []string) (regexMatcher, error) {
	m := make(regexMatcher, 0, len(entries))
	for i, e := range entries {
		re, err := CompileRegex(e)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		m = append(m, re)
	}
	return m, nil
}

func (m regexMatcher) Match(key string) bool {
	return slices.ContainsFunc(m, func(re *regexp.Regexp) bool { return re.MatchString(key) })
}
