package mta

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"time"
)

// Probe is one connection that was made to see what a server offers. No mail and
// no password goes over it.
type Probe struct {
	How      string        `json:"how"` // how it began: "in clear", "STARTTLS if offered", ...
	Took     time.Duration `json:"took"`
	Fault    string        `json:"fault,omitempty"`   // why no mail could be sent over it
	Level    string        `json:"level,omitempty"`   // of TLS that it had, by the words of tls-policy
	TLS      string        `json:"tls,omitempty"`     // version and cipher; empty: in clear
	Verdict  string        `json:"verdict,omitempty"` // on the server's certificate
	Identity string        `json:"identity,omitempty"`
	Reason   string        `json:"reason,omitempty"` // of a verdict that is "failed"
	Seen     string        `json:"fingerprint,omitempty"`
	Offers   []string      `json:"offers,omitempty"` // what would hold for mail
}

// probeTimeout bounds one connection: a person waits.
const probeTimeout = 30 * time.Second

// probeHosts tries hosts as a delivery does, until one would take mail, and
// writes down in their plans what each said.
func (m *MTA) probeHosts(ctx context.Context, d *destination, hosts []*host, plans []HostPlan) {
	for i := range plans {
		for j := range plans[i].Addresses {
			a := &plans[i].Addresses[j]
			a.Probes = m.probe(ctx, d, hosts[i], a.Address)
			if n := len(a.Probes); n > 0 && a.Probes[n-1].Fault == "" || ctx.Err() != nil {
				return
			}
		}
	}
}

// probe walks through what the policy allows at one address, as openAddr does.
// What failed before is no reason not to.
func (m *MTA) probe(ctx context.Context, d *destination, h *host, addr string) []Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var all []Probe
	for o, again := h.policy.first(h.port), true; again; {
		p, ref := m.probeOnce(ctx, d, h, addr, o)
		all = append(all, p)
		if ref == nil || ctx.Err() != nil {
			break
		}
		o, again = h.policy.next(o, ref.fault)
	}
	return all
}

func (m *MTA) probeOnce(ctx context.Context, d *destination, h *host, addr string, o opening) (p Probe, ref *refusal) {
	began := time.Now()
	p.How = o.String()
	defer func() {
		p.Took = time.Since(began).Round(time.Millisecond)
		if ref != nil {
			p.Fault = ref.brief()
		}
	}()
	network, at := m.at(h, addr, o)
	from := d.toward(addr)
	conn, err := m.dial(ctx, from, h, network, at, addr)
	if err != nil {
		return p, unreached(at, err)
	}
	l := newLink(ctx, conn, &m.cfg.Timeouts)
	defer l.close()
	bare := *h
	bare.label = "" // a probe logs in nowhere
	ch, ref := m.introduce(ctx, l, from, &bare, o, m.cfg.Logger.With("session", newID(), "probe", at))
	if tlsConn, ok := l.conn.(*tls.Conn); ok {
		state := tlsConn.ConnectionState()
		p.TLS, p.Seen = cipherText(state), fingerprint(state)
	}
	if ref != nil {
		if ctx.Err() != nil {
			ref = &refusal{fault: ref.fault, err: errors.New("no answer in time: " + ref.Error())}
		}
		return p, ref
	}
	p.Level = h.policy.had(ch).String()
	if ch.encrypted {
		p.Verdict, p.Identity, p.Reason = ch.verdict.State.String(), ch.verdict.Identity, ch.verdict.Reason
	}
	p.Offers = offersText(l.offers)
	if err := d.mayLogIn(h, ch, strings.Fields(strings.ToUpper(l.offers["AUTH"]))); h.label != "" && err != nil {
		p.Fault = err.Error()
	}
	_, _ = l.command(m.cfg.Timeouts.Quit, "QUIT")
	return p, nil
}

// String says how a session begins.
func (o opening) String() string {
	switch o {
	case ifOffered:
		return "STARTTLS if offered"
	case startTLS:
		return "STARTTLS"
	case fromStart:
		return "TLS from the first byte"
	}
	return "in clear"
}
