package mta

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tabard/internal/dns/dnstest"
	"tabard/lookup"
	"tabard/queue"
)

func TestMXOrder(t *testing.T) {
	w := newWorld(t)
	first, second := newPeer(t), newPeer(t)
	w.at("192.0.2.1:25", first.start()).at("192.0.2.2:25", second.start()).start()
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	if len(first.got()) != 1 || len(second.got()) != 0 {
		t.Errorf("best MX got %d, second %d", len(first.got()), len(second.got()))
	}
}

// A host that does not let us in is passed over, for every reason there is.
func TestMXFailover(t *testing.T) {
	for name, a := range map[string]action{
		"closed": nil, "refused": say("554 5.7.1 go away"), "busy": say("421 4.7.0 too busy"), "cut": cut,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first, second := newPeer(t), newPeer(t)
			if a != nil {
				w.at("192.0.2.1:25", first.on("", a).start())
			}
			w.at("192.0.2.2:25", second.start()).start()
			wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
			if n := len(second.got()); n != 1 {
				t.Errorf("second MX got %d", n)
			}
		})
	}
}

func TestMXAllOfAPreferenceFirst(t *testing.T) {
	w := newWorld(t)
	w.dns.Zone(t, `
d.example. MX 10 a.d.example.
d.example. MX 10 b.d.example.
d.example. MX 20 c.d.example.
a.d.example. A 192.0.2.11
a.d.example. A 192.0.2.12
b.d.example. AAAA 2001:db8::1
c.d.example. A 192.0.2.13
`)
	p := newPeer(t)
	w.at("192.0.2.13:25", p.start()).start()
	wantResult(t, w.one("x@d.example"), queue.Delivered, 250)
	for _, addr := range []string{"192.0.2.11:25", "192.0.2.12:25", "[2001:db8::1]:25"} {
		if w.dialled(addr) != 1 {
			t.Errorf("%s was dialled %d times", addr, w.dialled(addr))
		}
	}
}

func TestMXOutcomes(t *testing.T) {
	own := func(c *Config) { c.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.99")} }
	w := newWorld(t, own)
	w.dns.Zone(t, `
null.example.      MX 0 .
implicit.example.  A 192.0.2.3
bare.example.      TXT "nothing else"
broken.example.    MX 10 gone.example.
ours.example.      MX 10 US.example.net.
better.example.    MX 5 good.example.
better.example.    MX 10 us.example.net.
better.example.    MX 10 same.example.
better.example.    MX 20 worse.example.
byaddr.example.    MX 10 mine.example.
mine.example.      A 192.0.2.99
implicitly-ours.example. A 192.0.2.99
good.example.      A 192.0.2.4
same.example.      A 192.0.2.5
worse.example.     A 192.0.2.5
hostile.example.   MX 10 a\010b.example.
v6.example.        AAAA 2001:db8::6
`)
	p, wrong := newPeer(t), newPeer(t)
	addr := p.start()
	for _, a := range []string{"192.0.2.3:25", "192.0.2.7:25", "[2001:db8::7]:25", "[2001:db8::6]:25"} {
		w.at(a, addr)
	}
	w.at("192.0.2.5:25", wrong.start()).at("192.0.2.99:25", wrong.l.Addr().String())
	w.dns.Set("servfail.example", dnstest.ServFail)
	w.start()
	tests := []struct {
		to      string
		outcome queue.Outcome
		part    string
	}{
		{"x@null.example", queue.Failed, "5.1.10"},
		{"x@nowhere.example", queue.Failed, "5.1.2"},
		{"x@servfail.example", queue.Deferred, "4.4.3"},
		{"x@implicit.example", queue.Delivered, "2.0.0"},
		{"x@bare.example", queue.Failed, "5.4.4"},
		{"x@broken.example", queue.Deferred, "4.4.4"},
		{"x@hostile.example", queue.Deferred, "4.4.3"},
		{"x@ours.example", queue.Failed, "5.4.6"},
		{"x@byaddr.example", queue.Failed, "5.4.6"},
		{"x@implicitly-ours.example", queue.Failed, "5.4.6"},
		{"x@better.example", queue.Deferred, "4.4.1"}, // good.example is closed; the others are not for us
		{"x@v6.example", queue.Delivered, "2.0.0"},
		{"x@[192.0.2.7]", queue.Delivered, "2.0.0"},
		{"x@[ipv6:2001:db8::7]", queue.Delivered, "2.0.0"},
		{"x@[192.0.2.99]", queue.Failed, "5.4.6"},
		{"x@[nonsense]", queue.Failed, "5.1.2"},
	}
	for _, tt := range tests {
		t.Run(tt.to, func(t *testing.T) { wantResult(t, w.one(tt.to), tt.outcome, 0, tt.part) })
	}
	if wrong.connections() != 0 {
		t.Error("a host of our own or a worse preference was connected to")
	}
}

// A relay host is never a reason to bounce, and its MX is not asked for.
func TestRelayHostNotFound(t *testing.T) {
	w := newWorld(t)
	for _, h := range []string{"gone.example", "null.example"} {
		w.relay(lookup.RelayURL{Scheme: lookup.SchemeTLS, Host: h, Port: "25"})
		if w.stop == nil {
			w.start()
		}
		wantResult(t, w.one("x@example.org"), queue.Deferred, 0, "4.4.4", h)
	}
}

func TestRelayHostsInOrder(t *testing.T) {
	w, p := newWorld(t), newPeer(t)
	w.at("192.0.2.3:25", p.start())
	w.relay(
		lookup.RelayURL{Scheme: lookup.SchemeBackup, Host: "never.example"},
		lookup.RelayURL{Scheme: lookup.SchemeTLS, Host: "192.0.2.2", Port: "25"},
		lookup.RelayURL{Scheme: lookup.SchemeSMTP, Host: "other.example", Port: "25"},
	).start()
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	if w.dialled("192.0.2.2:25") != 1 {
		t.Error("the first usable host was not tried first")
	}
}

func TestSourceFamily(t *testing.T) {
	w, p := newWorld(t), newPeer(t)
	w.dns.Zone(t, "both.example. A 192.0.2.3\nboth.example. AAAA 2001:db8::3\nfour.example. A 192.0.2.3")
	w.at("[2001:db8::3]:25", p.start()).at("192.0.2.3:25", p.l.Addr().String())
	w.lookup.set(lookup.Route{Source: "2001:db8::99"})
	w.start()
	wantResult(t, w.one("x@both.example"), queue.Delivered, 250)
	if w.dialled("192.0.2.3:25") != 0 {
		t.Error("IPv4 was tried from an IPv6 source")
	}
	wantResult(t, w.one("x@four.example"), queue.Deferred, 0, "family mismatch")
}

// With a source of either family, each address is reached from its own, under the
// name that goes with it.
func TestSourcesOfBothFamilies(t *testing.T) {
	w, p := newWorld(t), newPeer(t)
	w.dns.Zone(t, "six.example. AAAA 2001:db8::3\nfour.example. A 192.0.2.3")
	w.at("[2001:db8::3]:25", p.start()).at("192.0.2.3:25", p.l.Addr().String())
	w.lookup.set(lookup.Route{Source: "192.0.2.99", Helo: "v4.example", Sources: []lookup.RouteSource{
		{Address: "192.0.2.99", Helo: "v4.example"}, {Address: "192.0.2.98", Helo: "no.example"}, {Address: "2001:db8::99", Helo: "v6.example"},
	}})
	w.start()
	wantResult(t, w.one("x@six.example"), queue.Delivered, 250)
	wantResult(t, w.one("x@four.example"), queue.Delivered, 250)
	if said := p.said(); !strings.Contains(said, "EHLO v6.example") || !strings.Contains(said, "EHLO v4.example") || strings.Contains(said, "no.example") {
		t.Errorf("the server was told %q", said)
	}
	if got := fmt.Sprint(w.sources("[2001:db8::3]:25"), w.sources("192.0.2.3:25")); got != "[2001:db8::99] [192.0.2.99]" {
		t.Errorf("connected from %s", got)
	}
}

// MX delivery is opportunistic; `relay tls` makes it mandatory, and then the
// name of the MX is verified.
func TestMXWithTLS(t *testing.T) {
	ca := newAuthority(t)
	for _, tt := range []struct {
		cert string
		want queue.Outcome
	}{{"mx1.example.org", queue.Delivered}, {"example.org", queue.Deferred}} {
		w, p := newWorld(t), newPeer(t)
		p.tls = serverTLS(ca.good(t, tt.cert))
		w.lookup.roots.AddCert(ca.cert)
		w.lookup.set(lookup.Route{TLS: true})
		w.at("192.0.2.1:25", p.start()).start()
		res := w.one("MARK@example.org")
		wantResult(t, res, tt.want, 0)
		if strings.Contains(p.onWire(), "MARK") {
			t.Error("in clear")
		}
	}
	// A second MX without TLS does not help.
	w, bad, plain := newWorld(t), newPeer(t), newPeer(t)
	bad.tls = serverTLS(ca.good(t, "mx1.example.org"))
	w.lookup.set(lookup.Route{TLS: true})
	w.at("192.0.2.1:25", bad.start()).at("192.0.2.2:25", plain.start()).start()
	wantResult(t, w.one("MARK@example.org"), queue.Deferred, 0)
	if strings.Contains(bad.onWire()+plain.onWire(), "MARK") || plain.connections() != 1 {
		t.Error("an MX without TLS got the message, or was not tried")
	}
}
