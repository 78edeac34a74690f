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

// The names of the cells: delivered over a verified or an unverified channel,
// delivered in clear, or deferred.
const (
	verified   = "verified"
	unverified = "unverified"
	clear      = "clear"
	later      = "deferred"
)

// serverKind is one kind of server, and what each scheme has to do with it.
type serverKind struct {
	name  string
	setup func(k *kit) (submission, wrapped *peer) // port 25 and port 465; nil: closed
	want  map[string]string
}

// kit is what servers are made of.
type kit struct {
	t        *testing.T
	ca       *authority
	stranger *authority
}

// peer returns a server; a config makes it offer TLS.
func (k *kit) peer(cfg *tls.Config) *peer {
	p := newPeer(k.t)
	p.tls = cfg
	return p
}

func (k *kit) wrapped(cfg *tls.Config) *peer {
	p := k.peer(cfg)
	p.onStart = true
	return p
}

// both serves STARTTLS on 25 and TLS on 465 with the same certificate.
func (k *kit) both(cfg *tls.Config) (*peer, *peer) { return k.peer(cfg), k.wrapped(cfg) }

const relayName = "relay.example"

// row spells the expectations in the order of the columns.
func row(smtpTLS, smtp, tls, smtps, ssl, noVerify, lifted string) map[string]string {
	return map[string]string{
		"smtp+tls": smtpTLS, "smtp": smtp, "tls": tls, "smtps": smtps, "ssl": ssl,
		"tls no-verify": noVerify, "smtp+tls tls": lifted,
	}
}

func serverKinds() []serverKind {
	inClear := row(clear, clear, later, later, later, later, later)
	badCert := row(unverified, clear, later, later, later, unverified, later)
	answer := func(s string) func(k *kit) (*peer, *peer) {
		return func(k *kit) (*peer, *peer) {
			return k.peer(serverTLS(k.ca.good(k.t, relayName))).on("STARTTLS", say(s)), nil
		}
	}
	with := func(cert func(k *kit) tls.Certificate) func(k *kit) (*peer, *peer) {
		return func(k *kit) (*peer, *peer) { return k.both(serverTLS(cert(k))) }
	}
	hour := time.Now().Add(time.Hour)
	return []serverKind{
		{"no STARTTLS", func(k *kit) (*peer, *peer) { return k.peer(nil), nil }, inClear},
		{"STARTTLS refused 4xx", answer("454 4.7.0 not now"), inClear},
		{"STARTTLS refused 5xx", answer("554 5.7.0 never"), inClear},
		{"STARTTLS answered 250", answer("250 2.0.0 fine"), inClear},
		{"STARTTLS answered garbage", answer("\x16\x03\x01 hello"), inClear},
		{"cut after STARTTLS", func(k *kit) (*peer, *peer) {
			return k.peer(serverTLS(k.ca.good(k.t, relayName))).on("STARTTLS", cut), nil
		}, inClear},
		{"cut after 220", func(k *kit) (*peer, *peer) {
			return k.peer(serverTLS(k.ca.good(k.t, relayName))).on("STARTTLS", func(c *peerConn, _ string) (string, bool) {
				return "220 go", false
			}), nil
		}, inClear},
		{"handshake broken", func(k *kit) (*peer, *peer) {
			breakIt := func(c *peerConn, _ string) (string, bool) {
				_, _ = io.WriteString(c.Conn, "220 go\r\n")
				_, _ = c.in.Peek(1) // the ClientHello
				return "this is no TLS", false
			}
			return k.peer(serverTLS(k.ca.good(k.t, relayName))).on("STARTTLS", breakIt), k.peer(nil)
		}, inClear},
		{"old TLS only", func(k *kit) (*peer, *peer) {
			cfg := serverTLS(k.ca.good(k.t, relayName))
			cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return k.both(cfg)
		}, inClear},
		{"self-signed", with(func(k *kit) tls.Certificate { return (*authority)(nil).leaf(k.t, relayName, hour) }), badCert},
		{"expired", with(func(k *kit) tls.Certificate {
			return k.ca.leaf(k.t, relayName, time.Now().Add(-time.Hour))
		}), badCert},
		{"wrong name", with(func(k *kit) tls.Certificate { return k.ca.good(k.t, "other.example") }), badCert},
		{"unknown CA", with(func(k *kit) tls.Certificate { return k.stranger.good(k.t, relayName) }), badCert},
		{"good", with(func(k *kit) tls.Certificate { return k.ca.good(k.t, relayName) }),
			row(verified, clear, verified, verified, verified, verified, verified)},
		{"good, TLS 1.2 only", func(k *kit) (*peer, *peer) {
			cfg := serverTLS(k.ca.good(k.t, relayName))
			cfg.MaxVersion = tls.VersionTLS12
			return k.both(cfg)
		}, row(verified, clear, verified, verified, verified, verified, verified)},
		{"TLS on connect only", func(k *kit) (*peer, *peer) {
			return nil, k.wrapped(serverTLS(k.ca.good(k.t, relayName)))
		}, row(later, later, later, verified, verified, later, later)},
		{"STARTTLS stripped on the way", func(k *kit) (*peer, *peer) {
			cfg := serverTLS(k.ca.good(k.t, relayName))
			strip := say("250-peer.example\r\n250-XXXXXXXX\r\n250 8BITMIME")
			return k.peer(cfg).on("EHLO", strip), k.wrapped(cfg)
		}, row(clear, clear, later, verified, verified, later, later)},
		{"data injected after STARTTLS", func(k *kit) (*peer, *peer) {
			return k.peer(serverTLS(k.ca.good(k.t, relayName))).on("STARTTLS", func(c *peerConn, _ string) (string, bool) {
				_, _ = io.WriteString(c.Conn, "220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n")
				return "", c.upgrade()
			}), k.wrapped(serverTLS(k.ca.good(k.t, relayName)))
		}, row(later, clear, later, verified, later, later, later)},
		{"EHLO refused", func(k *kit) (*peer, *peer) {
			return k.peer(serverTLS(k.ca.good(k.t, relayName))).on("EHLO", say("502 5.5.1 what?")), nil
		}, inClear},
	}
}

// route returns the route of a column.
func route(column string) lookup.Route {
	name, option, _ := strings.Cut(column, " ")
	url := lookup.RelayURL{Scheme: lookup.Scheme(name), Host: relayName, Port: "25"}
	if name == "smtps" {
		url.Port = "465"
	}
	return lookup.Route{Hosts: []lookup.RelayURL{url}, TLS: option == "tls", NoVerify: option == "no-verify"}
}

// Every scheme against every kind of server, with the proof from the wire.
func TestSchemes(t *testing.T) {
	k := &kit{t: t, ca: newAuthority(t), stranger: newAuthority(t)}
	for _, kind := range serverKinds() {
		for column, want := range kind.want {
			t.Run(column+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				testCell(t, &kit{t, k.ca, k.stranger}, kind, column, want)
			})
		}
	}
}

func testCell(t *testing.T, k *kit, kind serverKind, column, want string) {
	w := newWorld(t)
	w.dns.Zone(t, relayName+". A 192.0.2.25")
	w.lookup.roots.AddCert(k.ca.cert)
	w.lookup.set(route(column))
	smtpPeer, smtpsPeer := kind.setup(k)
	var peers []*peer
	for port, p := range map[string]*peer{"25": smtpPeer, "465": smtpsPeer} {
		if p != nil {
			w.at("192.0.2.25:"+port, p.start())
			peers = append(peers, p)
		}
	}
	res := w.start().one("MARK-rcpt@example.org")
	if got := cell(res, peers, w.log.String()); got != want {
		t.Errorf("%s, want %s: %s\n%s", got, want, stat(res), w.log)
	}
	for _, p := range peers {
		if leaked := strings.Contains(p.onWire(), "MARK"); leaked != (want == clear && len(p.got()) > 0) {
			t.Errorf("envelope or body on the wire in clear: %t; the cell is %s", leaked, want)
		}
	}
}

// cell says what became of the message, from the servers' point of view.
func cell(res queue.Result, peers []*peer, log string) string {
	var all []mail
	for _, p := range peers {
		all = append(all, p.got()...)
	}
	switch {
	case res.Outcome == queue.Deferred && len(all) == 0:
		return later
	case res.Outcome != queue.Delivered || len(all) != 1:
		return "lost or doubled"
	case !all[0].secured:
		return clear
	case strings.Contains(log, `msg="mta cert-check"`) && strings.Contains(log, "result=verified"):
		return verified
	}
	return unverified
}

// A session that was opened with lesser demands must not carry a message that
// has greater ones, even if it should end up in the wrong place.
func TestPermits(t *testing.T) {
	channels := map[string]channel{
		"clear":      {},
		"unchecked":  {encrypted: true},
		"failed":     {encrypted: true, verdict: lookup.Verdict{State: lookup.Failed}},
		"verified":   {encrypted: true, verdict: lookup.Verdict{State: lookup.Verified}},
		"impossible": {verdict: lookup.Verdict{State: lookup.Verified}},
	}
	for _, scheme := range []lookup.Scheme{"smtp+tls", "smtp", "tls", "smtps", "ssl", "lmtp"} {
		for _, noVerify := range []bool{false, true} {
			p, err := newPolicy(scheme, &lookup.Route{NoVerify: noVerify})
			if err != nil {
				t.Fatal(err)
			}
			for name, c := range channels {
				demanding := scheme == "tls" || scheme == "smtps" || scheme == "ssl"
				want := !demanding || name == "verified" || noVerify && c.encrypted
				if got := p.permits(c) == nil; got != want {
					t.Errorf("%s (no-verify %t) over a channel that is %s: permitted %t", scheme, noVerify, name, got)
				}
			}
		}
	}
}

// No chain of openings of an encrypting scheme ever reaches clear text.
func TestNoWayToClearText(t *testing.T) {
	for _, scheme := range []lookup.Scheme{"tls", "smtps", "ssl", "smtp+tls"} {
		for _, port := range []string{"25", "465", "587"} {
			p, err := newPolicy(scheme, &lookup.Route{TLS: true})
			if err != nil {
				t.Fatal(err)
			}
			walk(t, p, p.first(port), 0)
		}
	}
}

func walk(t *testing.T, p policy, o opening, depth int) {
	if o == inClear || o == ifOffered {
		t.Errorf("%s reaches an opening in clear", p.scheme)
	}
	if depth > 5 {
		t.Fatalf("%s goes on for ever", p.scheme)
	}
	for f := faultConnect; f <= faultAuth; f++ {
		if next, ok := p.next(o, f); ok {
			walk(t, p, next, depth+1)
		}
	}
}

func TestRefusedSchemes(t *testing.T) {
	tests := []struct {
		scheme lookup.Scheme
		route  lookup.Route
		want   string
	}{
		{"smtp", lookup.Route{TLS: true}, "TLS required"},
		{"lmtp", lookup.Route{TLS: true}, "TLS required"},
		{"backup", lookup.Route{}, "not supported yet"},
		{"smtp+notls", lookup.Route{}, "unknown relay scheme"},
		{"", lookup.Route{}, "unknown relay scheme"},
		{"tls", lookup.Route{BackupMX: "mx2.example"}, "not supported yet"},
	}
	for _, tt := range tests {
		w := newWorld(t)
		p := newPeer(t)
		w.at("192.0.2.3:25", p.start())
		tt.route.Hosts = []lookup.RelayURL{{Scheme: tt.scheme, Host: "192.0.2.3", Port: "25"}}
		w.lookup.set(tt.route)
		wantResult(t, w.start().one("x@example.org"), queue.Deferred, 0, tt.want)
		if p.connections() != 0 {
			t.Errorf("%s: the server was connected to", tt.scheme)
		}
	}
}
