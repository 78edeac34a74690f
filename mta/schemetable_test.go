package mta

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// This file is the one source of what each scheme does with each kind of server:
// TestSchemes runs it, and docs/relay.md has it as a table.
//
//go:generate env TABARD_WRITE_DOCS=1 go test -count=1 -run ^TestSchemeTableDocumented$ .

// What becomes of a message: delivered over a verified or an unverified channel,
// delivered in clear, or deferred.
const (
	verified   = "verified"
	unverified = "unverified"
	clear      = "clear"
	later      = "waits"
)

// column is one thing that a route can ask for, in every way that it is written.
type column struct {
	title     string // in the document
	spellings []spelling
}

// spelling is a relay URL, empty for MX delivery, and the options beside it.
type spelling struct {
	dialect string // empty: Tabard's own
	url     string
	options string
}

func (s spelling) String() string {
	return strings.TrimSpace(strings.Join([]string{s.dialect, or(s.url, "MX"), s.options}, " "))
}

const opensmtpd = "opensmtpd"

// schemeColumns are the columns, in the order of serverKind.want. In the dialect
// of OpenSMTPD they are what its manual says of its own names.
func schemeColumns() []column {
	return []column{
		{"`smtp+tls`, none, MX, `backup`, row `may`", []spelling{
			{url: ""}, {url: "relay.example"}, {url: "smtp+tls://relay.example"}, {url: "smtp+tls+mx://dest.example"},
			{url: "backup://mx2.example"}, {options: rowFor("may")},
			{opensmtpd, "", ""}, {opensmtpd, "relay.example", ""}, {opensmtpd, "smtp://relay.example", ""}}},
		{"`smtp`, row `none`", []spelling{{url: "smtp://relay.example"}, {options: rowFor("none")}, {opensmtpd, "smtp+notls://relay.example", ""}}},
		{"`lmtp`", []spelling{{url: "lmtp://relay.example:25"}, {opensmtpd, "lmtp://relay.example:25", ""}}},
		{"`tls`, `relay tls`, row `verify`", []spelling{
			{url: "tls://relay.example"}, {url: "tls+mx://"}, {options: rowFor("verify")}, {url: "smtp+tls://relay.example", options: rowFor("verify")},
			{url: "smtp+tls://relay.example", options: "tls"}, {url: "", options: "tls"},
			{opensmtpd, "smtp+tls://relay.example", ""}, {opensmtpd, "smtp://relay.example", "tls"}}},
		{"`smtps`", []spelling{{url: "smtps://relay.example"}, {opensmtpd, "smtps://relay.example", ""}}},
		{"`ssl`", []spelling{{url: "ssl://relay.example"}}},
		{"`tls` no-verify, row `encrypt`", []spelling{
			{url: "tls://relay.example", options: "tls no-verify"}, {options: rowFor("encrypt")}, {url: "", options: "tls no-verify"},
			{opensmtpd, "smtp+tls://relay.example", "tls no-verify"}}},
		{"`smtps` no-verify", []spelling{
			{url: "smtps://relay.example", options: "tls no-verify"}, {opensmtpd, "smtps://relay.example", "tls no-verify"}}},
		{"`ssl` no-verify", []spelling{{url: "ssl://relay.example", options: "tls no-verify"}}},
	}
}

// rowFor is a table of TLS policies with one row for everybody.
func rowFor(policy string) string { return fmt.Sprintf(`tls-policy { "*" = %q }`, policy) }

// serverKind is one kind of server, and what each column has to do with it.
type serverKind struct {
	name  string
	setup func(k *kit) (submission, wrapped *peer) // port 25 and port 465; nil: closed
	want  []string
	// Whoever reads the schemes differently differs here: every spelling is
	// tried with these, and the first one of each dialect with the others too.
	telling bool
}

// kit is what servers are made of.
type kit struct {
	t        *testing.T
	ca       *authority
	stranger *authority
}

// peer returns a server; a config makes it offer TLS. It repeats what it is told
// of the envelope, so that its own words could give that away too.
func (k *kit) peer(cfg *tls.Config) *peer {
	p := newPeer(k.t)
	p.tls = cfg
	return p.on("MAIL", func(_ *peerConn, line string) (string, bool) { return "250 2.1.0 heard " + line, true })
}

func (k *kit) wrapped(cfg *tls.Config) *peer {
	p := k.peer(cfg)
	p.onStart = true
	return p
}

// both serves STARTTLS on 25 and TLS on 465 with the same certificate.
func (k *kit) both(cfg *tls.Config) (*peer, *peer) { return k.peer(cfg), k.wrapped(cfg) }

// good is the configuration of a server that everything is right with.
func (k *kit) good() *tls.Config { return serverTLS(k.ca.good(k.t, relayName)) }

// startTLS is a server on port 25 alone, that does something to STARTTLS.
func (k *kit) startTLS(a action) (*peer, *peer) { return k.peer(k.good()).on("STARTTLS", a), nil }

const relayName = "relay.example"

func serverKinds() []serverKind {
	return append(brokenKinds(), certificateKinds()...)
}

// brokenKinds are servers with which STARTTLS does not come about.
func brokenKinds() []serverKind {
	inClear := []string{clear, clear, clear, later, later, later, later, later, later}
	answer := func(s string) func(k *kit) (*peer, *peer) {
		return func(k *kit) (*peer, *peer) { return k.startTLS(say(s)) }
	}
	// Port 465 does not speak TLS either.
	handshake := func(a action) func(k *kit) (*peer, *peer) {
		return func(k *kit) (*peer, *peer) { return k.peer(k.good()).on("STARTTLS", a), k.peer(nil) }
	}
	return []serverKind{
		{name: "no STARTTLS", setup: func(k *kit) (*peer, *peer) { return k.peer(nil), nil }, want: inClear, telling: true},
		{name: "STARTTLS refused with 4xx", setup: answer("454 4.7.0 not now"), want: inClear},
		{name: "STARTTLS refused with 5xx", setup: answer("554 5.7.0 never"), want: inClear},
		{name: "STARTTLS answered with 421", setup: answer("421 4.7.0 bye"), want: inClear},
		{name: "STARTTLS answered with 250", setup: answer("250 2.0.0 fine"), want: inClear},
		{name: "STARTTLS answered with garbage", setup: answer("\x16\x03\x01 hello"), want: inClear},
		{name: "connection cut at STARTTLS", setup: func(k *kit) (*peer, *peer) { return k.startTLS(cut) }, want: inClear},
		{name: "connection cut after the 220", setup: func(k *kit) (*peer, *peer) {
			return k.startTLS(func(*peerConn, string) (string, bool) { return "220 go", false })
		}, want: inClear},
		{name: "handshake cut off", setup: handshake(afterHello("", false)), want: inClear},
		{name: "handshake answered in clear", setup: handshake(afterHello("this is no TLS", false)), want: inClear},
		{name: "handshake ended by an alert", setup: handshake(afterHello("\x15\x03\x03\x00\x02\x02\x28", false)), want: inClear},
		{name: "TLS 1.0 and 1.1 only", setup: func(k *kit) (*peer, *peer) {
			cfg := k.good()
			cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return k.both(cfg)
		}, want: inClear},
		{name: "EHLO refused with 5xx", setup: func(k *kit) (*peer, *peer) {
			no := say("502 5.5.1 what?")
			return k.peer(k.good()).on("EHLO", no).on("LHLO", no), nil
		}, want: []string{clear, clear, later, later, later, later, later, later, later}},
		{name: "TLS from the first byte only", setup: func(k *kit) (*peer, *peer) {
			return nil, k.wrapped(k.good())
		}, want: []string{later, later, later, later, verified, verified, later, verified, verified}, telling: true},
		{name: "STARTTLS removed by a man in the middle, port 465 good", setup: func(k *kit) (*peer, *peer) {
			return k.peer(k.good()).on("EHLO", stripped), k.wrapped(k.good())
		}, want: []string{clear, clear, clear, later, verified, verified, later, verified, verified}},
		{name: "replies injected after the 220, port 465 good", setup: func(k *kit) (*peer, *peer) {
			return k.peer(k.good()).on("STARTTLS", func(c *peerConn, _ string) (string, bool) {
				_, _ = io.WriteString(c.Conn, "220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n")
				return "", c.upgrade()
			}), k.wrapped(k.good())
		}, want: []string{later, clear, clear, later, verified, later, later, verified, later}},
	}
}

// stripped is the server's own answer without the offer of STARTTLS.
func stripped(c *peerConn, _ string) (string, bool) {
	return strings.Replace(c.hello(), "STARTTLS", "XXXXXXXX", 1), true
}

// certificateKinds are servers that do TLS, with one certificate or another.
func certificateKinds() []serverKind {
	bad := []string{unverified, clear, clear, later, later, later, unverified, unverified, unverified}
	good := []string{verified, clear, clear, verified, verified, verified, verified, verified, verified}
	with := func(cert func(k *kit) tls.Certificate) func(k *kit) (*peer, *peer) {
		return func(k *kit) (*peer, *peer) { return k.both(serverTLS(cert(k))) }
	}
	return []serverKind{
		{name: "certificate self-signed", setup: with(func(k *kit) tls.Certificate {
			return (*authority)(nil).good(k.t, relayName)
		}), want: bad},
		{name: "certificate expired", setup: with(func(k *kit) tls.Certificate {
			return k.ca.leaf(k.t, relayName, time.Now().Add(-time.Hour))
		}), want: bad},
		{name: "certificate for another name", setup: with(func(k *kit) tls.Certificate {
			return k.ca.good(k.t, "other.example")
		}), want: bad},
		{name: "certificate of an unknown authority", setup: with(func(k *kit) tls.Certificate {
			return k.stranger.good(k.t, relayName)
		}), want: bad, telling: true},
		{name: "certificate good, TLS 1.2 only", setup: func(k *kit) (*peer, *peer) {
			cfg := k.good()
			cfg.MaxVersion = tls.VersionTLS12
			return k.both(cfg)
		}, want: good},
		{name: "certificate good", setup: func(k *kit) (*peer, *peer) { return k.both(k.good()) }, want: good, telling: true},
	}
}

const (
	schemeDoc   = "../docs/relay.md"
	schemeBegin = "<!-- from mta/schemetable_test.go, by `go generate ./mta` -->\n"
	schemeEnd   = "<!-- end -->\n"
)

// schemeTable is the table of the document.
func schemeTable() string {
	var b strings.Builder
	b.WriteString("| server |")
	line := "|---|"
	for _, c := range schemeColumns() {
		b.WriteString(" " + c.title + " |")
		line += "---|"
	}
	b.WriteString("\n" + line + "\n")
	for _, k := range serverKinds() {
		fmt.Fprintf(&b, "| %s | %s |\n", k.name, strings.Join(k.want, " | "))
	}
	return b.String()
}

// The document's table is this one.
func TestSchemeTableDocumented(t *testing.T) {
	text, err := os.ReadFile(schemeDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), schemeBegin)
	have, after, ended := strings.Cut(rest, schemeEnd)
	if !ok || !ended {
		t.Fatalf("%s has no %q ... %q", schemeDoc, schemeBegin, schemeEnd)
	}
	want := "\n" + schemeTable() + "\n"
	if have == want {
		return
	}
	if os.Getenv("TABARD_WRITE_DOCS") == "" {
		t.Fatalf("the table of %s is not that of the tests: run go generate ./mta", schemeDoc)
	}
	if err := os.WriteFile(schemeDoc, []byte(before+schemeBegin+want+schemeEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
