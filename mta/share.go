package mta

import (
	"context"
	"slices"
)

// Sessions are kept by pool: the set of servers, and all that a session depends on
// but the domain of the mail and the order of the relay URLs, which turns with their
// weights. So domains whose mail goes to the same servers share sessions. A pool only
// says where to look. Whether a session may be used is decided for each message, with
// the host as that message finds it: its own next hop, its own policy, and a
// certificate that was verified for the names which that policy asks for.

// seeker looks for a session for the message in hand.
type seeker struct {
	m        *MTA
	ctx      context.Context
	d        *destination
	anywhere bool // no better one is to be had: it need not lead where the mail would go first

	asked bool
	found []*host // the hosts of d, when they were asked for
}

func (m *MTA) seek(ctx context.Context, d *destination, anywhere bool) *seeker {
	return &seeker{m: m, ctx: ctx, d: d, anywhere: anywhere}
}

// reuse returns a session that waits and keeps what the message in hand asks for; of
// several, the one that was used last.
func (m *MTA) reuse(k *seeker) *session {
	for _, s := range slices.Backward(m.idle.list(k.d.pool)) {
		if p, ok := k.suits(s); ok && m.idle.claim(s) {
			s.host.policy = p
			return s
		}
	}
	return nil
}

// suits reports whether the message in hand may go over a session, and by which
// policy; not whether it is free. It reads nothing of it that changes.
func (k *seeker) suits(s *session) (policy, bool) {
	h := k.host(s)
	if h == nil {
		return policy{}, false
	}
	p, err := decide(k.ctx, h, k.d.parties(h))
	return p, err == nil && p.permits(s.channel) == nil && k.m.paused(h) == nil
}

// host returns the server of a session as a host of the message in hand, or nil if
// it is none, or not one that would be tried first.
func (k *seeker) host(s *session) *host {
	d, from := k.d, s.dest
	i := slices.Index(d.urls, from.urls[s.host.url])
	if i < 0 || i > 0 && !k.anywhere && !slices.Equal(d.urls, from.urls) {
		return nil
	}
	if d.domain == from.domain {
		return s.host.of(i)
	}
	if !d.limits.sharable() {
		return nil
	}
	var best *host // of that URL
	for _, h := range k.hosts() {
		if h.url != i {
			continue
		}
		if best == nil {
			best = h
		}
		if h.name == s.host.name && h.port == s.host.port && h.mx == s.host.mx && (k.anywhere || h.pref == best.pref) {
			return h
		}
	}
	return nil
}

// hosts asks once where the mail of the message in hand may go.
func (k *seeker) hosts() []*host {
	if !k.asked {
		k.asked = true
		k.found, _ = k.m.hosts(k.ctx, k.d) // none: open tells why
	}
	return k.found
}

// of returns the host as that of another turn of the same URLs. What it is asked for
// is decided anew.
func (h *host) of(url int) *host {
	return &host{
		scheme: h.scheme, url: url, nexthop: h.nexthop, name: h.name, port: h.port, label: h.label,
		mx: h.mx, pref: h.pref, implicit: h.implicit, proven: h.proven,
	}
}

// sharable reports whether mail may go over a connection that was made for another
// domain: not where connections are counted by what they are for.
func (l *Limits) sharable() bool {
	return l.PerDomain == 0 && l.PerConnector == 0 && l.DelayDomain == 0 && l.DelayConnector == 0 && l.DelayRelay == 0
}
