package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	mdns "github.com/miekg/dns"
)

// udpSize avoids fragments on every usual path.
const udpSize = 1232

// exchange asks the servers in turn, several rounds, until one gives an answer
// that counts.
func (r *Resolver) exchange(ctx context.Context, q question) (*mdns.Msg, error) {
	last := errors.New("no servers configured")
	for range r.cfg.Rounds {
		for _, server := range r.cfg.Servers {
			m, err := r.query(ctx, server, q)
			if err == nil {
				m.AuthenticatedData = m.AuthenticatedData && onThisHost(server)
				return m, nil
			}
			last = fmt.Errorf("server %s: %w", server, err)
			if ctx.Err() != nil {
				return nil, temporary(q, last)
			}
		}
	}
	return nil, temporary(q, last)
}

func temporary(q question, err error) error {
	return fmt.Errorf("%s: %w: %v", q, ErrTemporary, err)
}

// query asks one server: over UDP, over TCP when the answer did not fit, and
// without EDNS0 when the server does not understand that.
func (r *Resolver) query(ctx context.Context, server string, q question) (*mdns.Msg, error) {
	m, err := r.roundTrip(ctx, server, q, true)
	if err == nil && (m.Rcode == mdns.RcodeFormatError || m.Rcode == mdns.RcodeNotImplemented) {
		m, err = r.roundTrip(ctx, server, q, false)
	}
	if err != nil {
		return nil, err
	}
	if m.Rcode != mdns.RcodeSuccess && m.Rcode != mdns.RcodeNameError {
		return nil, fmt.Errorf("answered %s", mdns.RcodeToString[m.Rcode])
	}
	return m, nil
}

func (r *Resolver) roundTrip(ctx context.Context, server string, q question, edns bool) (*mdns.Msg, error) {
	m, err := r.send(ctx, "udp", server, q, edns)
	if m != nil && m.Truncated && checkReply(q, m) == nil {
		// A truncated message may not decode whole: its error does not matter.
		m, err = r.send(ctx, "tcp", server, q, edns)
	}
	if err != nil {
		return nil, err
	}
	if m.Response && m.Rcode == mdns.RcodeFormatError {
		return m, nil // such a reply need not repeat the question
	}
	return m, checkReply(q, m)
}

func (r *Resolver) send(ctx context.Context, network, server string, q question, edns bool) (*mdns.Msg, error) {
	m := new(mdns.Msg).SetQuestion(mdns.Fqdn(q.name), q.qtype)
	m.AuthenticatedData = true // we understand it in the answer (RFC 6840 section 5.7)
	if edns {
		m.SetEdns0(udpSize, false)
	}
	client := mdns.Client{Net: network, Timeout: r.cfg.Timeout}
	reply, _, err := client.ExchangeContext(ctx, m, server)
	return reply, err
}

// onThisHost reports whether what a server says of DNSSEC can be believed: nobody
// is on the way (RFC 4035 section 4.9.3).
func onThisHost(server string) bool {
	addr, err := netip.ParseAddrPort(server)
	return err == nil && addr.Addr().IsLoopback()
}

// total bounds a whole question: every server, every round, twice for TCP.
func (c Config) total() time.Duration {
	return min(time.Minute, time.Duration(2*c.Rounds*max(1, len(c.Servers)))*c.Timeout)
}
