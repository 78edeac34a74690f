package mta

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"tabard/lookup"
)

// explained asks, and gives the hosts in short.
func explained(t *testing.T, w *world, r ExplainRequest) (Explanation, string) {
	t.Helper()
	e, err := w.mta.Explain(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, h := range e.Hosts {
		fmt.Fprintf(&b, "%s mx=%v %d [%s] %s, by %s", h.URL, h.MX, h.Preference, h.Label, h.TLS, h.TLSBy)
		if h.Fault != nil {
			fmt.Fprintf(&b, " !%s %s", h.Fault.Status, h.Fault.Text)
		}
		for _, a := range h.Addresses {
			fmt.Fprintf(&b, " %s", a.Address)
			if a.Why != "" {
				fmt.Fprintf(&b, " (%s)", a.Why)
			}
			for _, p := range a.Probes {
				fmt.Fprintf(&b, " {%s: %s%s %s}", p.How, p.Fault, p.Verdict, p.Reason)
			}
		}
		b.WriteString("\n")
	}
	return e, b.String()
}

// What is told of a delivery by MX is what is then done.
func TestExplainMX(t *testing.T) {
	w := newWorld(t)
	e, got := explained(t, w, ExplainRequest{Action: "out", Address: "x@Example.org"})
	want := `smtp+tls://mx1.example.org:25 mx=true 10 [] may, by smtp+tls:// 192.0.2.1
smtp+tls://mx2.example.org:25 mx=true 20 [] may, by smtp+tls:// 192.0.2.2
`
	if got != want || e.Domain != "example.org" || e.Fault != nil {
		t.Errorf("%+v %v\n%s", e, e.Fault, got)
	}
	dns := fmt.Sprint(e.DNS)
	for _, part := range []string{"MX of example.org [10 mx1.example.org. 20 mx2.example.org.] 1h", "A of mx1.example.org [192.0.2.1]"} {
		if !strings.Contains(dns, part) {
			t.Errorf("no %q in DNS %s", part, dns)
		}
	}
	e, _ = explained(t, w, ExplainRequest{Action: "out", Address: "x@null.example"})
	if e.Fault == nil || !e.Fault.Final || e.Fault.Status != "5.1.10" {
		t.Errorf("null MX: %+v", e.Fault)
	}
	w.lookup.routeErr = errors.New("table relays: connection refused")
	e, _ = explained(t, w, ExplainRequest{Action: "out", Address: "x@example.org"})
	if e.Fault == nil || e.Fault.Final || !strings.Contains(e.Fault.Text, "table relays") {
		t.Errorf("table down: %+v", e.Fault)
	}
	if n := w.dialled("192.0.2.1:25"); n != 0 {
		t.Errorf("%d connections without --probe", n)
	}
}

// Hosts that failed are told with the reason, until when they are left alone.
func TestExplainPenalty(t *testing.T) {
	w := newWorld(t)
	second := newPeer(t)
	w.at("192.0.2.2:25", second.start()).start()
	w.one("x@example.org")
	_, got := explained(t, w, ExplainRequest{Action: "out", Address: "x@example.org"})
	if !strings.Contains(got, "192.0.2.1 (connect to 192.0.2.1:25: ") || strings.Contains(got, "192.0.2.2 (") {
		t.Error(got)
	}
}

// The policy of each URL is told with who wants it.
func TestExplainPolicies(t *testing.T) {
	w := newWorld(t)
	w.lookup.set(lookup.Route{Helo: "we.example", Hosts: []lookup.RelayURL{
		{Scheme: "tls", Label: "isp", Host: "other.example", Port: "587"}, {Scheme: "smtp", Host: "192.0.2.9", Port: "25"},
		{Scheme: "lmtp", Host: "/run/lmtp", Port: "0"}, {Scheme: "ssl", Host: "gone.example", Port: "25"},
	}})
	e, got := explained(t, w, ExplainRequest{Action: "out", Address: "x@example.org"})
	want := `tls://other.example:587 mx=false 0 [isp] verify, by tls:// 192.0.2.3
smtp://192.0.2.9:25 mx=false 0 [] none, by smtp:// 192.0.2.9
lmtp:///run/lmtp mx=false 0 [] none, by lmtp:// /run/lmtp
ssl://gone.example:25 mx=false 0 [] verify, by ssl:// !4.4.4 host gone.example not found
`
	if got != want || e.Helo != "we.example" {
		t.Errorf("%s", got)
	}
	// A message asks for TLS of its own, unless it has no sender.
	asks := ExplainRequest{Action: "out", Address: "x@example.org", Sender: "a@we.example", RequireTLS: true}
	_, got = explained(t, w, asks)
	if !strings.Contains(got, "tls://other.example:587 mx=false 0 [isp] verify, by") || !strings.Contains(got, "!5.7.10 ") || !strings.Contains(got, "REQUIRETLS") {
		t.Errorf("with REQUIRETLS: %s", got)
	}
	asks.Sender = ""
	if _, got = explained(t, w, asks); got != want {
		t.Errorf("a bounce: %s", got)
	}
	w.lookup.set(lookup.Route{Hosts: []lookup.RelayURL{{Scheme: "smtp", Host: "192.0.2.9", Port: "25"}}, TLS: true})
	if _, got := explained(t, w, ExplainRequest{Action: "out", Address: "x@example.org"}); !strings.Contains(got, "!4.3.5 host 192.0.2.9: TLS required") {
		t.Errorf("a veto: %s", got)
	}
	w.lookup.set(lookup.Route{TLS: true, NoVerify: true, Present: true})
	e, got = explained(t, w, ExplainRequest{Action: "out", Address: "x@example.org"})
	if !strings.Contains(got, "encrypt, by action tls no-verify") || e.Certificate != "none: no certificate" {
		t.Errorf("%q %s", e.Certificate, got)
	}
}

// A probe goes as far as mail could be sent, and not further.
func TestProbe(t *testing.T) {
	ca := newAuthority(t)
	w, p := newWorld(t), newPeer(t)
	p.tls, p.ehlo = serverTLS(ca.good(t, "other.example")), []string{"AUTH PLAIN"}
	w.lookup.roots.AddCert(ca.cert)
	w.lookup.creds["isp"] = lookup.Credentials{User: "u", Password: "SECRET"}
	w.at("192.0.2.3:587", p.start())
	w.relay(lookup.RelayURL{Scheme: "tls", Host: "192.0.2.4", Port: "25"}, lookup.RelayURL{Scheme: "tls", Label: "isp", Host: "other.example", Port: "587"},
		lookup.RelayURL{Scheme: "tls", Host: "192.0.2.5", Port: "25"})
	e, got := explained(t, w, ExplainRequest{Action: "out", Address: "x@example.org", Probe: true})
	for _, part := range []string{"{STARTTLS: connect to 192.0.2.4:25: ", "{STARTTLS: verified }"} {
		if !strings.Contains(got, part) {
			t.Errorf("no %q in %s", part, got)
		}
	}
	ok := e.Hosts[1].Addresses[0].Probes[0]
	if !strings.HasPrefix(ok.TLS, "TLSv1.3:") || ok.Identity != "other.example" || !strings.HasPrefix(ok.Seen, "SHA256:") || len(ok.Offers) == 0 {
		t.Errorf("%+v", ok)
	}
	if said := p.said(); strings.Contains(said, "MAIL") || strings.Contains(said, "AUTH") || !strings.Contains(said, "QUIT") || w.lookup.asked != 0 {
		t.Errorf("the server was told %q, credentials were asked for %d times", said, w.lookup.asked)
	}
	if w.dialled("192.0.2.5:25") != 0 {
		t.Error("a host after one that would take mail was tried")
	}
}

// A probe falls back as a delivery does, and tells of each connection.
func TestProbeFallback(t *testing.T) {
	ca := newAuthority(t)
	for name, tt := range map[string]struct {
		scheme lookup.Scheme
		set    func(*peer)
		want   string
	}{
		"refused":    {"smtp+tls", func(p *peer) { p.on("STARTTLS", say("454 4.7.0 not now")) }, "{STARTTLS if offered: STARTTLS refused: 454 4.7.0 not now } {in clear:  }"},
		"no login":   {"smtp+tls", nil, "{STARTTLS if offered: the credentials of \"isp\" go only over an encrypted and verified channelfailed unknown-authority}"},
		"unverified": {"tls", nil, "{STARTTLS: certificate of other.example not verified: unknown-authority }"},
		"greeting":   {"tls", func(p *peer) { p.on("", say("554 5.7.1 go\x1b away")) }, "{STARTTLS: greeting refused: 554 5.7.1 go? away }"},
	} {
		w, p := newWorld(t), newPeer(t)
		p.tls = serverTLS(ca.good(t, "other.example"))
		label := ""
		if name == "no login" {
			label = "isp"
		}
		if tt.set != nil {
			tt.set(p)
		}
		w.at("192.0.2.3:25", p.start()).relay(lookup.RelayURL{Scheme: tt.scheme, Label: label, Host: "other.example", Port: "25"})
		if _, got := explained(t, w, ExplainRequest{Action: "out", Address: "x@example.org", Probe: true}); !strings.Contains(got, tt.want) {
			t.Errorf("%s: no %q in %s", name, tt.want, got)
		}
	}
}
