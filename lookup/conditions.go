package lookup

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/net/idna"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/table"
)

// unknownName is the reverse DNS name of a peer that has none.
const unknownName = "<unknown>"

// ruleBuilder collects the conditions of one rule.
type ruleBuilder struct {
	s     *Service
	conds []condition
	err   error
}

// add adds a condition called word, which looks at what value returns.
func (b *ruleBuilder) add(word string, c *config.Cond, value func(*subject) string, test func(context.Context, *subject) (bool, error)) {
	b.conds = append(b.conds, condition{negate: c.Negate, word: word, cond: c, value: value, test: test})
}

// opt adds a condition on a table, if it was written. An empty subject is in no
// table, unless patterns are asked.
func (b *ruleBuilder) opt(word string, c *config.Cond, service table.Service, key func(*subject) string) {
	if c == nil {
		return
	}
	if service == table.Domain {
		b.domain(word, c, key)
		return
	}
	t := b.table(c.Table)
	if c.Regex {
		service = table.Regex
	}
	b.add(word, c, key, func(ctx context.Context, sub *subject) (bool, error) {
		k := key(sub)
		if k == "" && service != table.Regex {
			return false, nil
		}
		return t.Check(ctx, service, k)
	})
}

// domain adds a condition on a domain, asked in A-labels and U-labels if they
// differ: a table may hold either.
func (b *ruleBuilder) domain(word string, c *config.Cond, key func(*subject) string) {
	t := b.table(c.Table)
	service := table.Domain
	if c.Regex {
		service = table.Regex
	}
	b.add(word, c, key, func(ctx context.Context, sub *subject) (bool, error) {
		k := key(sub)
		if k == "" && service != table.Regex {
			return false, nil
		}
		ok, err := t.Check(ctx, service, k)
		if other := otherLabels(k); err == nil && !ok && other != "" {
			return t.Check(ctx, service, other)
		}
		return ok, err
	})
}

// otherLabels returns a domain's U-labels for A-labels and the other way round,
// or nothing when there is no other form.
func otherLabels(domain string) string {
	if address.ASCII(domain) && !strings.Contains(domain, "xn--") {
		return ""
	}
	other, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return ""
	}
	if other == domain {
		if other = address.Unicode(domain); other == domain {
			return ""
		}
	}
	return other
}

func (b *ruleBuilder) table(name config.TableRef) *table.Table {
	t, err := b.s.tables.get(name)
	if err != nil {
		b.err = errors.Join(b.err, err)
	}
	return t
}

// from adds the rule's origin.
func (b *ruleBuilder) from(m *config.Match) {
	c := m.FromCond
	switch m.From {
	case config.FromAny:
		b.add("from any", &c, sourceKey, always)
	case config.FromSocket:
		b.add("from socket", &c, sourceKey, func(_ context.Context, sub *subject) (bool, error) {
			return sub.session.Socket && !sub.internal, nil
		})
	case config.FromSrc:
		b.opt("from src", &c, table.NetAddr, sourceKey)
	case config.FromRDNS:
		b.rdns(c)
	case config.FromAuth:
		b.authenticated("from auth", &c)
	case config.FromMailFrom:
		b.opt("from mail-from", &c, table.MailAddr, senderKey)
	default:
		c.Table = tableLocalhost
		b.opt("from local", &c, table.NetAddr, sourceKey)
	}
}

// dest adds the rule's destination.
func (b *ruleBuilder) dest(m *config.Match) {
	c := m.ForCond
	switch m.For {
	case config.ForAny:
		b.add("for any", &c, rcptDomain, always)
	case config.ForDomain:
		b.opt("for domain", &c, table.Domain, rcptDomain)
	case config.ForRcptTo:
		b.opt("for rcpt-to", &c, table.MailAddr, rcptKey)
	default:
		c.Table = tableLocalnames
		b.opt("for local", &c, table.Domain, rcptDomain)
	}
}

// rdns adds a condition on the peer's name; without a table, that it has one.
func (b *ruleBuilder) rdns(c config.Cond) {
	if c.Table != "" {
		b.opt("from rdns", &c, table.Domain, rdnsKey)
		return
	}
	b.add("from rdns", &c, rdnsKey, func(_ context.Context, sub *subject) (bool, error) {
		return sub.session.RDNS != "" && sub.session.RDNS != unknownName, nil
	})
}

// authenticated adds a condition on the session's user; without a table, that
// there is one. User names that are addresses match as addresses do.
func (b *ruleBuilder) authenticated(word string, c *config.Cond) {
	if c == nil {
		return
	}
	if c.Table == "" {
		b.add(word, c, userKey, func(_ context.Context, sub *subject) (bool, error) { return sub.session.User != "", nil })
		return
	}
	t, regex := b.table(c.Table), c.Regex
	b.add(word, c, userKey, func(ctx context.Context, sub *subject) (bool, error) {
		user := sub.session.User
		if user == "" {
			return false, nil
		}
		service := table.String
		switch {
		case regex:
			service = table.Regex
		case strings.Contains(user, "@"):
			service = table.MailAddr
		}
		return t.Check(ctx, service, user)
	})
}

func always(context.Context, *subject) (bool, error) { return true, nil }

func rcptDomain(sub *subject) string { return sub.rcpt.Domain }

func userKey(sub *subject) string { return sub.session.User }

func rdnsKey(sub *subject) string {
	if sub.session.RDNS == "" {
		return unknownName
	}
	return sub.session.RDNS
}

// sourceKey is where the mail comes from, as netaddr asks it.
func sourceKey(sub *subject) string {
	if sub.internal || sub.session.Socket {
		return table.LocalKey
	}
	if !sub.session.Remote.IsValid() {
		return ""
	}
	return table.AddrKey(sub.session.Remote)
}

func senderKey(sub *subject) string { return table.MailAddrKey(sub.sender) }

// rcptKey is the recipient without the quotes that SMTP may need.
func rcptKey(sub *subject) string {
	if sub.rcpt.Domain == "" {
		return sub.rcpt.Local
	}
	return sub.rcpt.Local + "@" + sub.rcpt.Domain
}
