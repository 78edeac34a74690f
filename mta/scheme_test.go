package mta

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/lookup"
	"tabard/queue"
	"tabard/table"
)

// schemeLookup is lookup itself, with an action for each spelling of a dialect. In
// Tabard's dialect the URLs stand in the actions, in OpenSMTPD's in tables.
func schemeLookup(t *testing.T, dialect string, ca *authority) lookup.Outbound {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if dialect != "" {
		text.WriteString("dialect " + dialect + "\n")
	}
	fmt.Fprintf(&text, "ca test cert %q\n", path)
	for _, c := range schemeColumns() {
		for _, s := range c.spellings {
			if s.dialect != dialect {
				continue
			}
			where := ""
			switch {
			case s.url != "" && dialect != "":
				where = fmt.Sprintf("domain { dest.example = %q }", s.url)
			case s.url != "":
				where = fmt.Sprintf("host %q", s.url)
			}
			fmt.Fprintf(&text, "action %q relay %s ca test %s\nmatch from any for any action %q\n", s.String(), where, s.options, s.String())
		}
	}
	return realLookup(t, text.String())
}

// realLookup serves a configuration whose tables are all in its text.
func realLookup(t *testing.T, text string) *lookup.Service {
	t.Helper()
	cfg, err := config.Parse("test.conf", []byte(text), config.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, u := range cfg.Unsupported {
		t.Errorf("not supported: %v", u)
	}
	s, err := lookup.New(t.Context(), lookup.Options{Config: cfg, Hostname: "us.example.net", Roots: x509.NewCertPool(),
		Open: func(ctx context.Context, t config.Table) (table.Backend, error) {
			return static.Open(ctx, t, table.Options{})
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Every scheme against every kind of server, with the proof from the wire, by
// routes that lookup makes of a configuration.
func TestSchemes(t *testing.T) {
	k := &kit{t: t, ca: newAuthority(t), stranger: newAuthority(t)}
	dialects := map[string]lookup.Outbound{"": schemeLookup(t, "", k.ca), opensmtpd: schemeLookup(t, opensmtpd, k.ca)}
	for _, kind := range serverKinds() {
		for i, c := range schemeColumns() {
			seen := make(map[string]bool)
			for _, s := range c.spellings {
				if seen[s.dialect] && !kind.telling {
					continue
				}
				seen[s.dialect] = true
				t.Run(s.String()+"/"+kind.name, func(t *testing.T) {
					t.Parallel()
					testCell(t, &kit{t, k.ca, k.stranger}, kind, dialects[s.dialect], s, kind.want[i])
				})
			}
		}
	}
}

func testCell(t *testing.T, k *kit, kind serverKind, look lookup.Outbound, s spelling, want string) {
	w := newWorld(t)
	w.mta.lookup = look
	w.dns.Zone(t, "dest.example. MX 10 "+relayName+".\ndest.example. MX 20 mx2.example.\n"+relayName+". A 192.0.2.25")
	smtpPeer, smtpsPeer := kind.setup(k)
	var peers []*peer
	for port, p := range map[string]*peer{"25": smtpPeer, "465": smtpsPeer} {
		if p != nil {
			p.lmtp = strings.HasPrefix(s.url, "lmtp:")
			w.at("192.0.2.25:"+port, p.start())
			peers = append(peers, p)
		}
	}
	j := job(w.queue.nextID(), "MARK-rcpt@dest.example")
	j.Envelopes[0].Action = s.String()
	res := w.start().deliver(j)[0]
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
		"unchecked":  {encrypted: true, version: tls.VersionTLS13},
		"failed":     {encrypted: true, version: tls.VersionTLS13, verdict: lookup.Verdict{State: lookup.Failed}},
		"verified":   {encrypted: true, version: tls.VersionTLS13, verdict: lookup.Verdict{State: lookup.Verified}, names: []string{relayName}},
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

// newPolicy is that of a relay URL and the options of its action.
func newPolicy(scheme lookup.Scheme, route *lookup.Route) (policy, error) {
	h := &host{scheme: scheme, nexthop: relayName, name: relayName, port: "25"}
	return decide(context.Background(), h, (&destination{route: *route}).parties(h))
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
		{"smtp+notls", lookup.Route{}, "unknown relay scheme"},
		{"", lookup.Route{}, "unknown relay scheme"},
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
