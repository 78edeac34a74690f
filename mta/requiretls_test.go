package mta

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"tabard/internal/dns/dnstest"
	"tabard/lookup"
	"tabard/queue"
)

// tagged is a server that offers REQUIRETLS.
func tagged(p *peer) *peer {
	p.ehlo = append(p.ehlo, "REQUIRETLS")
	return p
}

func requireJob(id int, to ...string) queue.Job {
	j := job(id, to...)
	j.Message.RequireTLS = true
	return j
}

// A message with REQUIRETLS goes to who is verified and offers it, with the
// parameter. Otherwise it fails for good, unless the fault may pass (RFC 8689
// section 4.2.1). Nothing of it is said to anybody else.
func TestRequireTLSOverRelay(t *testing.T) {
	ca := newAuthority(t)
	good, bad := ca.good(t, relayName), ca.good(t, "other.example")
	tests := map[string]struct {
		scheme   lookup.Scheme
		noVerify bool
		server   func(t *testing.T) *peer
		want     queue.Outcome
		enhanced string
	}{
		"offered": {"smtp+tls", false, func(t *testing.T) *peer { p := tagged(newPeer(t)); p.tls = serverTLS(good); return p }, queue.Delivered, ""},
		"not offered": {"tls", false, func(t *testing.T) *peer { p := newPeer(t); p.tls = serverTLS(good); return p },
			queue.Failed, "5.7.30"},
		"offered in clear alone": {"tls", false, func(t *testing.T) *peer {
			p := newPeer(t).on("EHLO", func(c *peerConn, _ string) (string, bool) {
				if c.secured {
					return "250-peer\r\n250 SIZE", true
				}
				return "250-peer\r\n250-REQUIRETLS\r\n250 STARTTLS", true
			})
			p.tls = serverTLS(good)
			return p
		}, queue.Failed, "5.7.30"},
		"no TLS": {"smtp+tls", false, func(t *testing.T) *peer { return tagged(newPeer(t)) }, queue.Failed, "5.7.10"},
		"wrong certificate": {"smtp+tls", false, func(t *testing.T) *peer { p := tagged(newPeer(t)); p.tls = serverTLS(bad); return p },
			queue.Failed, "5.7.10"},
		"wrong certificate, no-verify": {"tls", true, func(t *testing.T) *peer { p := tagged(newPeer(t)); p.tls = serverTLS(bad); return p },
			queue.Failed, "5.7.10"},
		"never encrypts": {"smtp", false, func(t *testing.T) *peer { return tagged(newPeer(t)) }, queue.Failed, "5.7.10"},
		"LMTP":           {"lmtp", false, func(t *testing.T) *peer { return tagged(newPeer(t)) }, queue.Failed, "5.7.10"},
		"STARTTLS not now": {"tls", false, func(t *testing.T) *peer {
			p := tagged(newPeer(t)).on("STARTTLS", say("454 4.7.0 not now"))
			p.tls = serverTLS(good)
			return p
		}, queue.Deferred, ""},
		"greeting 421": {"tls", false, func(t *testing.T) *peer { return newPeer(t).on("", say("421 4.3.2 busy")) }, queue.Deferred, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := newWorld(t), tt.server(t)
			w.dns.Zone(t, relayName+". A 192.0.2.25")
			w.lookup.roots.AddCert(ca.cert)
			w.at("192.0.2.25:25", p.start())
			w.lookup.set(lookup.Route{NoVerify: tt.noVerify, Hosts: []lookup.RelayURL{{Scheme: tt.scheme, Host: relayName, Port: "25"}}})
			res := w.start().deliver(requireJob(1, "MARK@example.org"))[0]
			wantResult(t, res, tt.want, 0, tt.enhanced)
			if strings.Contains(p.onWire(), "MARK") {
				t.Errorf("on the wire in clear; dialogue:\n%s", p.said())
			}
			if mails := p.got(); tt.want == queue.Delivered && !strings.Contains(mails[0].from, " REQUIRETLS") {
				t.Errorf("MAIL %s", mails[0].from)
			}
		})
	}
	w := newWorld(t).relay(lookup.RelayURL{Scheme: "tls", Host: "192.0.2.25", Port: "25"})
	wantResult(t, w.start().deliver(requireJob(1, "x@example.org"))[0], queue.Deferred, 0, "4.4.1")
}

// By MX, each host is tried; the mail waits as long as one of them may yet do.
func TestRequireTLSOverMX(t *testing.T) {
	ca := newAuthority(t)
	server := func(t *testing.T, name string, offer bool) *peer {
		p := newPeer(t)
		if offer {
			tagged(p)
		}
		p.tls = serverTLS(ca.good(t, name))
		return p
	}
	tests := map[string]struct {
		first, second func(t *testing.T) *peer // nil: not there
		want          queue.Outcome
		text          string
	}{
		"second offers": {
			func(t *testing.T) *peer { return server(t, "mx1.example.org", false) },
			func(t *testing.T) *peer { return server(t, "mx2.example.org", true) }, queue.Delivered, ""},
		"none offers": {
			func(t *testing.T) *peer { return server(t, "mx1.example.org", false) },
			func(t *testing.T) *peer { return server(t, "mx2.example.org", false) }, queue.Failed, "5.7.30"},
		"second is away": {func(t *testing.T) *peer { return server(t, "mx1.example.org", false) }, nil, queue.Deferred, "4.4.1"},
		"first is away":  {nil, func(t *testing.T) *peer { return server(t, "mx2.example.org", false) }, queue.Deferred, "4.4.1"},
		// A certificate for whatever name a forged MX record has is worth nothing.
		"certificate of a stranger": {
			func(t *testing.T) *peer { return server(t, "mx1.elsewhere.example", true) },
			func(t *testing.T) *peer { return server(t, "mx2.elsewhere.example", true) }, queue.Failed, "wrong-name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.lookup.roots.AddCert(ca.cert)
			for i, make := range []func(t *testing.T) *peer{tt.first, tt.second} {
				if make != nil {
					w.at([]string{"192.0.2.1:25", "192.0.2.2:25"}[i], make(t).start())
				}
			}
			wantResult(t, w.start().deliver(requireJob(1, "x@example.org"))[0], tt.want, 0, tt.text)
		})
	}
}

// That our own certificate cannot be had now is not the server's fault: the mail
// waits.
func TestRequireTLSWithoutOurCertificate(t *testing.T) {
	ca := newAuthority(t)
	w, p := newWorld(t), tagged(newPeer(t))
	w.dns.Zone(t, relayName+". A 192.0.2.25")
	w.lookup.roots.AddCert(ca.cert)
	p.tls = serverTLS(ca.good(t, relayName))
	p.tls.ClientAuth = tls.RequestClientCert
	w.at("192.0.2.25:25", p.start())
	w.lookup.set(lookup.Route{Hosts: []lookup.RelayURL{{Scheme: "tls", Host: relayName, Port: "25"}}, Present: true})
	wantResult(t, w.start().deliver(requireJob(1, "x@example.org"))[0], queue.Deferred, 0, "4.7.8", "no certificate")
}

// An MX that nobody vouches for must be the destination's own, or one that the
// administrator lists.
func TestRequireTLSAndForgedMX(t *testing.T) {
	ca := newAuthority(t)
	for row, want := range map[string]queue.Outcome{
		"": queue.Failed, "verify": queue.Failed, "encrypt": queue.Failed,
		"secure match=.hoster.example": queue.Delivered, "verify match=hostname": queue.Delivered,
	} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			w, p := newWorld(t), tagged(newPeer(t))
			w.dns.Zone(t, "dest.example. MX 10 mx.hoster.example.\nmx.hoster.example. A 192.0.2.25")
			w.lookup.roots.AddCert(ca.cert)
			p.tls = serverTLS(ca.good(t, "mx.hoster.example"))
			w.at("192.0.2.25:25", p.start())
			w.lookup.set(lookup.Route{Policy: policyRow(t, row)})
			wantResult(t, w.start().deliver(requireJob(1, "x@dest.example"))[0], want, 0)
		})
	}
}

// Where DNSSEC vouches for the MX record, its host is the right one.
func TestRequireTLSAndProvenMX(t *testing.T) {
	ca := newAuthority(t)
	w, p := newWorld(t), tagged(newPeer(t))
	w.dns.Zone(t, "dest.example. MX 10 mx.hoster.example.\nmx.hoster.example. A 192.0.2.25")
	w.dns.Set("dest.example", dnstest.Proven)
	w.lookup.roots.AddCert(ca.cert)
	p.tls = serverTLS(ca.good(t, "mx.hoster.example"))
	w.at("192.0.2.25:25", p.start())
	res := w.start().deliver(requireJob(1, "x@dest.example"))[0]
	wantResult(t, res, queue.Delivered, 250)
	if res.Security != (queue.Security{Wanted: "verify", By: "REQUIRETLS", Had: "verify"}) {
		t.Errorf("%+v", res.Security)
	}
}

// A bounce is not thrown away for want of REQUIRETLS, and has it where it can
// (RFC 8689 section 5).
func TestRequireTLSOfABounce(t *testing.T) {
	for _, offers := range []bool{false, true} {
		w, p := newWorld(t), newPeer(t)
		if offers {
			tagged(p).tls = serverTLS((*authority)(nil).leaf(t, "mx1.example.org", time.Now().Add(time.Hour)))
		}
		w.at("192.0.2.1:25", p.start())
		j := requireJob(1, "x@example.org")
		j.Message.Sender = ""
		wantResult(t, w.start().deliver(j)[0], queue.Delivered, 250)
		if got := p.got()[0].from; strings.Contains(got, "REQUIRETLS") != offers {
			t.Errorf("offered %t: MAIL %s", offers, got)
		}
	}
}

// A session without REQUIRETLS is not used for a message that needs it.
func TestRequireTLSNotOverAnOldSession(t *testing.T) {
	ca := newAuthority(t)
	w, p := newWorld(t), newPeer(t)
	w.lookup.roots.AddCert(ca.cert)
	p.tls = serverTLS(ca.good(t, "mx1.example.org"))
	w.at("192.0.2.1:25", p.start())
	wantResult(t, w.start().one("x@example.org"), queue.Delivered, 250)
	q := newPeer(t)
	tagged(q).tls = serverTLS(ca.good(t, "mx2.example.org"))
	w.at("192.0.2.2:25", q.start())
	wantResult(t, w.deliver(requireJob(2, "x@example.org"))[0], queue.Delivered, 250)
	if len(p.got()) != 1 || len(q.got()) != 1 {
		t.Errorf("%d and %d messages", len(p.got()), len(q.got()))
	}
	// And the other way round any will do.
	wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
	if p.connections() != 2 || q.connections() != 1 {
		t.Errorf("%d and %d connections", p.connections(), q.connections())
	}
}
