package mta

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// afterHello answers STARTTLS with 220, waits for the ClientHello, sends a text
// instead of an answer, and hangs or closes.
func afterHello(text string, stay bool) action {
	return func(c *peerConn, _ string) (string, bool) {
		if c.hears() {
			_, _ = io.WriteString(c.Conn, text)
		}
		if stay {
			hang(c)
		}
		return "", false
	}
}

// hears agrees to STARTTLS and waits for the ClientHello.
func (c *peerConn) hears() bool {
	if _, err := io.WriteString(c.Conn, "220 go ahead\r\n"); err != nil {
		return false
	}
	_, err := c.in.Peek(5)
	return err == nil
}

// dripRecords sends the beginning of a long handshake message, a byte a record,
// for as long as anybody listens.
func dripRecords(c *peerConn, _ string) (string, bool) {
	if !c.hears() {
		return "", false
	}
	_, _ = io.WriteString(c.Conn, "\x16\x03\x03\x00\x04\x02\x00\x40\x00")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.WriteString(c.Conn, "\x16\x03\x03\x00\x01\x00"); err != nil {
			break
		}
	}
	return "", false
}

// hostileServer is a server that does not shake hands as it should, and what we
// say of it.
type hostileServer struct {
	name  string
	setup func(*peer)
	want  string
}

func hostileServers(t *testing.T, ca *authority) []hostileServer {
	reply := func(text string, stay bool) func(*peer) {
		return func(p *peer) { p.on("STARTTLS", afterHello(text, stay)) }
	}
	chain := func(n int) func(*peer) {
		return func(p *peer) {
			cert := ca.good(t, relayName)
			for range n - 1 {
				cert.Certificate = append(cert.Certificate, cert.Certificate[0])
			}
			p.tls = serverTLS(cert)
		}
	}
	return []hostileServer{
		{"stalls", reply("", true), "timeout"},
		{"stalls in its hello", reply("\x16\x03\x03\x00\x40\x02\x00", true), "timeout"},
		{"drips", func(p *peer) { p.on("STARTTLS", dripRecords) }, "timeout"},
		{"closes", reply("", false), "closed by the server"},
		{"closes in its hello", reply("\x16\x03\x03\x00\x40\x02\x00", false), "closed by the server"},
		{"HTTP", reply("HTTP/1.1 400 Bad Request\r\n\r\n", true), "does not look like a TLS handshake"},
		{"SMTP", reply("454 4.7.0 TLS not available\r\n", true), "does not look like a TLS handshake"},
		{"SSLv2", reply("\x80\x2e\x04\x00\x01\x00\x02\x00\x00\x00\x00\x00", true), "SSLv2"},
		{"alert", reply("\x15\x03\x03\x00\x02\x02\x28", true), "handshake failure"},
		{"huge message", reply("\x16\x03\x03\x00\x04\x02\xff\xff\xff", true), "exceeds maximum"},
		{"TLS 1.1 only", func(p *peer) {
			p.tls.MinVersion, p.tls.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}, "protocol version"},
		{"17 certificates", chain(17), "not verified: " + lookup.ReasonChainTooLong},
		{"1,000 certificates", chain(1000), "exceeds maximum"},
	}
}

// Whatever a server does instead of a handshake, the mail waits, and one line
// says why; a good server gets its mail meanwhile.
func TestHostileTLS(t *testing.T) {
	ca := newAuthority(t)
	judge := verifier(t, ca)
	for _, tt := range hostileServers(t, ca) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			patience := 30 * time.Second
			if tt.want == "timeout" {
				patience = 2 * time.Second // also for the good one
			}
			w, p, other := newWorld(t, func(c *Config) { c.Timeouts.TLS = patience }), newPeer(t), newPeer(t)
			w.dns.Zone(t, relayName+". A 192.0.2.25")
			w.lookup.verifier = judge
			p.tls = serverTLS(ca.good(t, relayName))
			other.tls = serverTLS(ca.good(t, "192.0.2.3"))
			tt.setup(p)
			w.at("192.0.2.25:25", p.start()).at("192.0.2.3:25", other.start())
			w.lookup.byDomain["bad.example"] = lookup.Route{Hosts: []lookup.RelayURL{{Scheme: "tls", Host: relayName, Port: "25"}}}
			w.lookup.byDomain["good.example"] = lookup.Route{Hosts: []lookup.RelayURL{{Scheme: "tls", Host: "192.0.2.3", Port: "25"}}}
			w.start()
			began := time.Now()
			bad, good := job(w.queue.nextID(), "x@bad.example"), job(w.queue.nextID(), "x@good.example")
			w.queue.push(bad, good)
			wantResult(t, w.queue.await(t, good.Envelopes[0].ID), queue.Delivered, 250)
			wantResult(t, w.queue.await(t, bad.Envelopes[0].ID), queue.Deferred, 0, "4.7.5", tt.want)
			if took := time.Since(began); took > 25*time.Second {
				t.Errorf("took %v", took)
			}
			if n := strings.Count(w.log.String(), `msg="mta error"`); n != 1 || !strings.Contains(w.log.String(), tt.want) {
				t.Errorf("%d lines about errors:\n%s", n, w.log)
			}
			if strings.Contains(p.onWire(), "MARK") {
				t.Error("in clear")
			}
		})
	}
}
