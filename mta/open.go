package mta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"tabard/internal/eventlog"
	"tabard/queue"
)

// open makes a session with the best server of a destination that lets us. ctx
// bounds the opening only.
func (m *MTA) open(ctx context.Context, d *destination) (*session, *failure) {
	hosts, fail := m.hosts(ctx, d)
	if fail != nil {
		return nil, fail
	}
	for _, h := range hosts[:min(len(hosts), m.cfg.Limits.Hosts)] {
		if f := m.paused(h); f != nil {
			fail = fail.or(f)
			continue
		}
		s, f := m.openHost(ctx, d, h)
		if f == nil {
			return s, nil
		}
		fail = fail.or(f)
		if ctx.Err() != nil {
			return nil, returned("stopping")
		}
	}
	return nil, fail
}

// openHost tries a host's addresses in turn.
func (m *MTA) openHost(ctx context.Context, d *destination, h *host) (*session, *failure) {
	if fail := d.decide(ctx, h); fail != nil {
		return nil, fail
	}
	addrs, fail := m.addresses(ctx, h, d)
	if fail != nil {
		fail.security = h.policy.security()
		return nil, fail
	}
	for _, addr := range addrs {
		s, ref := m.openAddr(ctx, d, h, addr)
		if ref == nil {
			return s, nil
		}
		ref.host = h.name
		fail = fail.or(h.policy.failure(ref))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fail
}

// decide settles the policy of a host for the message in hand.
func (d *destination) decide(ctx context.Context, h *host) *failure {
	p, err := decide(ctx, h, d.parties(h))
	h.policy = p
	var v *veto
	if errors.As(err, &v) && v.final {
		return failed("5.7.10", err.Error())
	}
	if err != nil {
		return deferred("4.3.5", fmt.Sprintf("host %s: %v", h.name, err))
	}
	return nil
}

// failure is what a refusal means for a message with the policy. One that must
// not travel without REQUIRETLS fails where servers will not do it (RFC 8689
// section 4.2.1); what another attempt may bring about is waited for.
func (p policy) failure(ref *refusal) *failure {
	f := ref.failure()
	f.security = p.security()
	if !p.tagged || ref.silent {
		return f
	}
	switch ref.fault {
	case faultUntagged:
		f.outcome, f.enhanced = queue.Failed, "5.7.30"
	case faultNoTLS, faultPeer:
		f.outcome, f.enhanced = queue.Failed, "5.7.10"
	}
	return f
}

// openAddr walks through what the policy allows at one address. What failed
// above the connection is remembered for this destination alone: another one
// may ask for less, or for a certificate that this server does have.
func (m *MTA) openAddr(ctx context.Context, d *destination, h *host, addr string) (*session, *refusal) {
	place := placeOf(d, h, addr)
	if until, why, ok := m.penalties.enter(place, d.urged); !ok {
		return nil, &refusal{err: fmt.Errorf("not tried again yet: %s", why), until: until, silent: true}
	}
	var s *session
	var ref *refusal
	for o, again := h.policy.first(h.port), true; again; {
		if s, ref = m.attempt(ctx, d, h, addr, o); ref == nil {
			m.penalties.good(place)
			s.places = append(s.places, place)
			return s, nil
		}
		if ctx.Err() != nil {
			break
		}
		o, again = h.policy.next(o, ref.fault)
	}
	switch {
	case ctx.Err() != nil || ref.silent || ref.fault == faultConnect || ref.fault == faultGreeting || ref.fault == faultUntagged:
		m.penalties.leave(place)
	default:
		ref.until = m.penalties.bad(place, ref.brief())
	}
	return nil, ref
}

// attempt opens one connection in one way. Faults of the connection itself are
// remembered for everybody who goes to that address from the same source.
func (m *MTA) attempt(ctx context.Context, d *destination, h *host, addr string, o opening) (*session, *refusal) {
	network, address := m.at(h, addr, o)
	place := routePlace(d, addr, address)
	until, why, ok := m.penalties.enter(place, d.urged)
	if !ok {
		return nil, &refusal{fault: faultConnect, err: fmt.Errorf("not tried again yet: %s", why), until: until, silent: true}
	}
	s, ref := m.connect(ctx, d, h, network, address, addr, o)
	if ref != nil {
		m.count.refused(ref)
	}
	switch {
	case ctx.Err() != nil:
		m.penalties.leave(place)
	case ref != nil && (ref.fault == faultConnect || ref.fault == faultGreeting):
		if ref.until.IsZero() {
			ref.until = m.penalties.bad(place, ref.brief())
		} else {
			m.penalties.leave(place)
		}
	default:
		m.penalties.good(place)
	}
	if s != nil {
		s.places = append(s.places, place)
	}
	return s, ref
}

// placeOf names an address of a host as a destination's mail finds it.
func placeOf(d *destination, h *host, addr string) string {
	return d.key + " " + h.policy.key() + " " + addr
}

// routePlace names the way to an address for everybody's mail.
func routePlace(d *destination, addr, address string) string {
	return "route " + d.toward(addr).route.Source + " " + address
}

// connect takes a place at the address, dials, and brings the session up.
func (m *MTA) connect(ctx context.Context, d *destination, h *host,
	network, address, addr string, o opening) (*session, *refusal) {
	id, opened := newID(), time.Now()
	log := m.cfg.Logger.With("session", id)
	log.Info("mta connecting", "address", string(h.policy.scheme)+"://"+address, "host", h.name)
	spot, ref := m.place(ctx, d, addr)
	d.spent.Add(queue.StepTurn, opened)
	if ref != nil {
		log.Info("mta error", "reason", ref.brief())
		return nil, ref
	}
	from := d.toward(addr)
	began := time.Now()
	conn, err := m.dial(ctx, from, h, network, address, addr)
	if ctx.Err() == nil {
		m.families.note(addr, err)
	}
	if err != nil {
		d.spent.Add(queue.StepConnect, began)
		spot.abandon()
		log.Info("mta error", "reason", err.Error())
		return nil, unreached(address, err)
	}
	log.Info("mta connected")
	l := newLink(ctx, conn, &m.cfg.Timeouts)
	ch, ref := m.introduce(ctx, l, from, h, o, log)
	d.spent.Add(queue.StepConnect, began.Add(l.shook))
	d.spent[queue.StepTLS] += l.shook
	if ref != nil {
		l.close()
		spot.end()
		log.Info("mta error", "reason", ref.brief())
		log.Info("mta disconnected", "reason", "error", "messages", 0)
		m.recordSession(&eventlog.Session{
			ID: id, Peer: addr, Name: h.name, Helo: from.helo, Began: opened, Reason: ref.brief(),
		}, &ch)
		return nil, ref
	}
	return m.newSession(l, id, opened, d, h, spot, addr, ch, log), nil
}

// dial connects from a destination's source, for as long as the address is worth.
func (m *MTA) dial(ctx context.Context, from *destination, h *host, network, address, addr string) (net.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, m.patience(h, addr))
	defer stop()
	return m.cfg.Dial(ctx, network, from.route.Source, address)
}

func unreached(address string, err error) *refusal {
	return &refusal{fault: faultConnect, err: fmt.Errorf("connect to %s: %w", address, plainError(err))}
}

// introduce is the dialogue from the greeting to the point where mail can be
// sent: the one place that carries out an opening.
func (m *MTA) introduce(ctx context.Context, l *link, d *destination, h *host, o opening,
	log *slog.Logger) (ch channel, ref *refusal) {
	look := &inspection{mta: m, ctx: ctx, dest: d, host: h}
	if o == fromStart {
		if ch, ref = look.secure(ctx, l, l.handshake, log); ref != nil {
			return ch, ref
		}
	}
	if ref = l.greeting(); ref != nil {
		return ch, ref
	}
	verb := "EHLO"
	if h.policy.lmtp() {
		verb = "LHLO"
	}
	// Who knows no EHLO knows no STARTTLS either.
	fallback := o == inClear || o == ifOffered
	if ref = l.hello(verb, d.helo, fallback && !h.policy.lmtp()); ref != nil {
		return ch, ref
	}
	_, offers := l.offers["STARTTLS"]
	if o == startTLS && !offers {
		return ch, &refusal{fault: faultNoTLS, err: errNoTLS}
	}
	if o == startTLS || o == ifOffered && offers {
		if ch, ref = look.secure(ctx, l, l.startTLS, log); ref != nil {
			return ch, ref
		}
		// What was offered in clear is void (RFC 3207 section 4.2).
		if ref = l.hello(verb, d.helo, false); ref != nil {
			return ch, ref
		}
	}
	if _, ch.tagged = l.offers["REQUIRETLS"]; h.policy.tagged && !ch.tagged {
		return ch, &refusal{fault: faultUntagged, err: errUntagged}
	}
	return ch, m.authenticate(ctx, l, d, h, ch, log)
}
