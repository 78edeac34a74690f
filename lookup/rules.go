package lookup

import (
	"context"
	"fmt"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/table"
)

// subject is what the ruleset judges: one recipient in one session.
type subject struct {
	session *Session
	tag     string
	// internal means that the recipient was born from an expansion or a bounce:
	// it comes from local, whatever the session.
	internal bool
	sender   string
	rcpt     address.Address
	tracer   *tracer // nil: nobody wants to know why
}

// rule is a match rule ready to be judged: its conditions in the order of
// evaluation (tag, from, for, helo, auth, tls, mail-from, rcpt-to).
type rule struct {
	pos    string
	conds  []condition
	narrow int // conditions up to and with a `for` that names destinations; 0 without
	reject bool
	action *action
}

// condition is one test, with its negation.
type condition struct {
	negate bool
	word   string                // what it is called in the configuration
	cond   *config.Cond          // what it is compared with
	value  func(*subject) string // what is compared
	test   func(context.Context, *subject) (bool, error)
}

// matchResult is what the ruleset says.
type matchResult struct {
	rule *rule // nil: no rule matched
	// known means that a rule's from and for fitted, although the rule as a
	// whole did not: the destination is one that we serve.
	known bool
}

// match returns the first rule whose conditions all hold. An error of a table
// ends the evaluation: a rule passed over by mistake could accept what the
// administrator refuses.
func (s *Service) match(ctx context.Context, sub *subject) (matchResult, error) {
	res := matchResult{}
	for i := range s.rules {
		r := &s.rules[i]
		held, err := r.eval(ctx, sub)
		sub.tracer.rule(r, sub, held, err)
		if err != nil {
			return matchResult{}, fmt.Errorf("match rule at %s: %w", r.pos, err)
		}
		if held == len(r.conds) {
			res.rule = r
			return res, nil
		}
		if r.narrow > 0 && held >= r.narrow {
			res.known = true
		}
	}
	return res, nil
}

// eval returns how many conditions hold before the first that does not, or that
// cannot be judged.
func (r *rule) eval(ctx context.Context, sub *subject) (int, error) {
	for i, c := range r.conds {
		ok, err := c.test(ctx, sub)
		if err != nil {
			return i, err
		}
		if ok == c.negate {
			return i, nil
		}
	}
	return len(r.conds), nil
}

func (s *Service) newRule(m *config.Match) (rule, error) {
	r := rule{pos: m.Pos.String(), reject: m.Reject}
	if !m.Reject {
		a, err := s.action(m.Action)
		if err != nil {
			return r, fmt.Errorf("%s: %w", m.Pos, err)
		}
		r.action = a
	}
	b := ruleBuilder{s: s}
	b.opt("tag", m.Tag, table.String, func(sub *subject) string { return sub.tag })
	b.from(m)
	b.dest(m)
	if m.For != config.ForAny && !m.ForCond.Negate {
		r.narrow = len(b.conds)
	}
	b.opt("helo", m.Helo, table.Domain, func(sub *subject) string { return sub.session.Helo })
	b.authenticated("auth", m.Auth)
	if m.TLS != nil {
		word := "tls"
		if m.TLSVerified {
			word = "tls verified"
		}
		b.add(word, m.TLS, tlsWord, func(_ context.Context, sub *subject) (bool, error) {
			return sub.session.TLS && (!m.TLSVerified || sub.session.Peer.State == Verified), nil
		})
	}
	b.opt("mail-from", m.MailFrom, table.MailAddr, senderKey)
	b.opt("rcpt-to", m.RcptTo, table.MailAddr, rcptKey)
	r.conds = b.conds
	if b.err != nil {
		return r, fmt.Errorf("%s: %w", m.Pos, b.err)
	}
	return r, nil
}

func tlsWord(sub *subject) string {
	switch {
	case !sub.session.TLS:
		return ""
	case sub.session.Peer.State == Verified:
		return "tls verified"
	}
	return "tls"
}
