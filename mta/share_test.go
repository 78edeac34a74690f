package mta

import (
	"strings"
	"testing"

	"tabard/lookup"
	"tabard/queue"
)

const sharedZone = `
one.example.   MX 10 mx1.provider.example.
one.example.   MX 20 mx2.provider.example.
two.example.   MX 10 mx1.provider.example.
two.example.   MX 20 mx2.provider.example.
other.example. MX 10 mx2.provider.example.
other.example. MX 20 mx1.provider.example.
more.example.  MX 10 mx1.provider.example.
mx1.provider.example. A 192.0.2.1
mx2.provider.example. A 192.0.2.2
`

// sharedWorld has two domains with the same servers, of which mx1 is p.
func sharedWorld(t *testing.T, adjust ...func(*Config)) (w *world, p *peer) {
	t.Helper()
	w, p = newWorld(t, adjust...), newPeer(t)
	w.dns.Zone(t, sharedZone)
	w.at("192.0.2.1:25", p.start()).at("192.0.2.2:25", newPeerAddr(t))
	return w, p
}

func newPeerAddr(t *testing.T) string { return newPeer(t).start() }

// Domains whose mail goes to the same servers share sessions, with the server that
// each would use first.
func TestDomainsShareSessions(t *testing.T) {
	w, p := sharedWorld(t)
	w.start()
	for _, domain := range []string{"one", "two", "one", "other", "more", "other"} {
		wantResult(t, w.one("x@"+domain+".example"), queue.Delivered, 250)
	}
	if a, b := w.dialled("192.0.2.1:25"), w.dialled("192.0.2.2:25"); a != 2 || b != 1 {
		t.Errorf("%d connections to mx1, %d to mx2", a, b)
	}
	if n := len(p.got()); n != 4 {
		t.Errorf("%d messages over mx1", n)
	}
}

// Where connections are counted by domain, none is for another.
func TestDomainsCountedApart(t *testing.T) {
	for name, limit := range map[string]func(*Config){
		"domain":    func(c *Config) { c.Limits.PerDomain = 5 },
		"connector": func(c *Config) { c.Limits.PerConnector = 5 },
		"own":       func(c *Config) { c.ForDomain = map[string]Limits{"two.example": {}} },
	} {
		w, p := sharedWorld(t, limit)
		w.start()
		for _, domain := range []string{"one", "two"} {
			wantResult(t, w.one("x@"+domain+".example"), queue.Delivered, 250)
		}
		if p.connections() != 2 {
			t.Errorf("%s: %d connections", name, p.connections())
		}
	}
}

// A session for one domain serves another only as far as it keeps what that one's
// mail asks for, by the names that its certificate must be for.
func TestSharedSessionKeepsPolicy(t *testing.T) {
	ca := newAuthority(t)
	for _, tt := range []struct {
		cert, one, two string // certificate's name, and policies
		want           queue.Outcome
		conns          int // to mx1
	}{
		{"", "", "may", queue.Delivered, 1},
		{"", "", "encrypt", queue.Deferred, 2},
		{"mx1.provider.example", "encrypt", "verify", queue.Delivered, 1}, // it was verified, for that name
		{"mx1.provider.example", "verify", "verify", queue.Delivered, 1},
		{"mx1.provider.example", "verify", "encrypt", queue.Delivered, 1},
		{"mx1.provider.example", "verify", "secure", queue.Deferred, 2},
		{"one.example", "secure", "secure", queue.Deferred, 2},
		{"one.example", "secure", "secure match=one.example", queue.Delivered, 2}, // verified anew
	} {
		w, p := sharedWorld(t)
		w.at("192.0.2.2:25", "refused")
		w.lookup.roots.AddCert(ca.cert)
		if tt.cert != "" {
			p.tls = serverTLS(ca.good(t, tt.cert))
		}
		for domain, row := range map[string]string{"one.example": tt.one, "two.example": tt.two} {
			w.lookup.byDomain[domain] = lookup.Route{Policy: policyRow(t, row)}
		}
		w.start()
		wantResult(t, w.one("x@one.example"), queue.Delivered, 250)
		if r := w.one("x@two.example"); r.Outcome != tt.want || p.connections() != tt.conns {
			t.Errorf("%s, %s then %s: %d connections, %+v", tt.cert, tt.one, tt.two, p.connections(), r)
		}
	}
}

// Relay URLs in another turn are the same sessions, each message over the one whose
// turn it is, and with the policy that this URL has now.
func TestTurnsShareSessions(t *testing.T) {
	w := newWorld(t)
	p, q := newPeer(t), newPeer(t)
	w.at("192.0.2.1:25", p.start()).at("192.0.2.2:25", q.start())
	a := lookup.RelayURL{Scheme: "smtp+tls", Host: "192.0.2.1", Port: "25"}
	b := lookup.RelayURL{Scheme: "smtp+tls", Host: "192.0.2.2", Port: "25"}
	w.start()
	send := func(urls ...lookup.RelayURL) queue.Result {
		w.relay(urls...)
		return w.one("x@example.org")
	}
	for range 3 {
		wantResult(t, send(a, b), queue.Delivered, 250)
		wantResult(t, send(b, a), queue.Delivered, 250)
	}
	if x, y := len(p.got()), len(q.got()); x != 3 || y != 3 || p.connections() != 1 || q.connections() != 1 {
		t.Errorf("%d and %d messages over %d and %d connections", x, y, p.connections(), q.connections())
	}
	strict := a
	strict.Policy = policyRow(t, "encrypt")
	wantResult(t, send(strict, b), queue.Delivered, 250) // over b: a has no TLS
	strict = b
	strict.Policy = policyRow(t, "encrypt")
	wantResult(t, send(strict, a), queue.Delivered, 250)
	if x, y := len(p.got()), len(q.got()); x != 4 || y != 4 {
		t.Errorf("%d and %d messages", x, y)
	}
	if n := len(w.mta.idle.byKey); n != 1 || strings.Count(w.log.String(), `msg="mta connected"`) != 6 {
		t.Errorf("%d pools; log:\n%s", n, w.log)
	}
}

// The policy of a session that was opened in place of another is that of its own URL.
func TestTurnedPolicy(t *testing.T) {
	w, p := newWorld(t), newPeer(t)
	w.at("192.0.2.1:25", p.start())
	dead := lookup.RelayURL{Scheme: "smtp+tls", Host: "192.0.2.2", Port: "25"}
	alive := lookup.RelayURL{Scheme: "smtp+tls", Host: "192.0.2.1", Port: "25"}
	w.relay(dead, alive).start()
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	alive.Policy = policyRow(t, "encrypt")
	w.relay(alive, dead)
	wantResult(t, w.one("x@example.org"), queue.Deferred, 0)
	if n := len(p.got()); n != 1 {
		t.Errorf("%d messages in clear", n)
	}
}
