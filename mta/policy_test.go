package mta

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
	"tabard/table"
)

// policyRow is a row of a tls-policy table as lookup hands it over.
func policyRow(t testing.TB, text string) *lookup.TLSPolicy {
	t.Helper()
	if text == "" {
		return nil
	}
	p, err := table.ParseTLSPolicy(table.Row{text})
	if err != nil {
		t.Fatal(err)
	}
	return &lookup.TLSPolicy{Row: `tls-policy <t> "x"`, Policy: p}
}

// policyColumns are the levels of rows over URLs. PIN stands for the digest of
// the server's certificate, KEY for that of its key.
func policyColumns() map[string]string {
	return map[string]string{
		"none":        "smtp+tls:none",
		"may":         "smtp+tls:may",
		"encrypt":     "smtp+tls:encrypt",
		"verify":      "smtp+tls:verify",
		"secure":      "smtp+tls:secure",
		"pinned":      "smtp+tls:fingerprint=PIN",
		"key pinned":  "smtp+tls:fingerprint=KEY",
		"wrong pin":   "smtp+tls:fingerprint=" + strings.Repeat("ab", 32),
		"TLS 1.3":     "smtp+tls:encrypt protocols=TLSv1.3",
		"tls none":    "tls:none",
		"tls encrypt": "tls:encrypt",
		"tls pinned":  "tls:fingerprint=PIN",
		"smtp may":    "smtp:may",
		"smtp must":   "smtp:encrypt",
	}
}

// policyWants says what is to become of mail, by column, for a class of servers.
func policyWants(class string) map[string]string {
	none := map[string]string{"none": clear, "smtp may": clear, "smtp must": later, "wrong pin": later}
	always := func(outcome string, columns ...string) {
		for _, c := range columns {
			none[c] = outcome
		}
	}
	switch class {
	case "no TLS":
		always(clear, "may")
		always(later, "encrypt", "verify", "secure", "pinned", "key pinned", "TLS 1.3", "tls none", "tls encrypt", "tls pinned")
	case "injected":
		always(later, "may", "encrypt", "verify", "secure", "pinned", "key pinned", "TLS 1.3", "tls none", "tls encrypt", "tls pinned")
	case "unverified":
		always(unverified, "may", "encrypt", "pinned", "key pinned", "TLS 1.3", "tls pinned")
		always(later, "verify", "secure", "tls none", "tls encrypt")
	default:
		always(verified, "may", "encrypt", "verify", "secure", "pinned", "key pinned", "TLS 1.3", "tls none", "tls encrypt", "tls pinned")
	}
	if class == "TLS 1.2" {
		none["TLS 1.3"] = later
	}
	return none
}

// Every level of a tls-policy row against kinds of servers, with the proof from
// the wire.
func TestPolicyLevels(t *testing.T) {
	classes := map[string]string{
		"no STARTTLS": "no TLS", "STARTTLS refused with 4xx": "no TLS", "connection cut after the 220": "no TLS",
		"handshake answered in clear": "no TLS", "TLS 1.0 and 1.1 only": "no TLS",
		"STARTTLS removed by a man in the middle": "no TLS", "replies injected after the 220": "injected",
		"certificate self-signed": "unverified", "certificate expired": "unverified",
		"certificate for another name": "unverified", "certificate of an unknown authority": "unverified",
		"certificate good": "good", "certificate good, TLS 1.2 only": "TLS 1.2",
	}
	k := &kit{t: t, ca: newAuthority(t), stranger: newAuthority(t)}
	for _, kind := range serverKinds() {
		class, ok := classes[kind.name]
		if !ok {
			continue
		}
		for column, want := range policyWants(class) {
			t.Run(column+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				testPolicyCell(t, &kit{t, k.ca, k.stranger}, kind, column, want)
			})
		}
	}
}

func testPolicyCell(t *testing.T, k *kit, kind serverKind, column, want string) {
	w := newWorld(t)
	w.dns.Zone(t, relayName+". A 192.0.2.25")
	w.lookup.roots.AddCert(k.ca.cert)
	p, _ := kind.setup(k)
	w.at("192.0.2.25:25", p.start())
	scheme, text, _ := strings.Cut(policyColumns()[column], ":")
	if p.tls != nil {
		leaf := p.tls.Certificates[0].Leaf
		text = strings.Replace(text, "PIN", fmt.Sprintf("%x", sha256.Sum256(leaf.Raw)), 1)
		text = strings.Replace(text, "KEY", fmt.Sprintf("%x", sha256.Sum256(leaf.RawSubjectPublicKeyInfo)), 1)
	}
	text = strings.NewReplacer("PIN", strings.Repeat("00", 32), "KEY", strings.Repeat("00", 32)).Replace(text)
	w.relay(lookup.RelayURL{Scheme: lookup.Scheme(scheme), Host: relayName, Port: "25", Policy: policyRow(t, text)})
	res := w.start().one("MARK-rcpt@example.org")
	if got := cell(res, []*peer{p}, w.log.String()); got != want {
		t.Errorf("%s, want %s: %s\n%s", got, want, stat(res), w.log)
	}
	if leaked := strings.Contains(p.onWire(), "MARK"); leaked != (want == clear) {
		t.Errorf("envelope or body on the wire in clear: %t; the cell is %s", leaked, want)
	}
}

// With delivery by MX, verify is for the name of the MX host, and secure for the
// destination, whom nobody can forge in DNS.
func TestPolicyByMX(t *testing.T) {
	tests := []struct {
		row, cert, want string
	}{
		{"verify", "mx1.example.org", "verify"},
		{"verify", "example.org", "wrong-name"},
		{"secure", "example.org", "secure"},
		{"secure", "mx1.example.org", "secure"}, // below the destination
		{"secure", "mx.elsewhere.example", "wrong-name"},
		{"verify match=mx.elsewhere.example", "mx.elsewhere.example", "verify"},
		{"secure match=nexthop", "mx1.example.org", "wrong-name"},
		{"secure match=hostname", "mx1.example.org", "secure"},
		{"secure match=.elsewhere.example", "mx.elsewhere.example", "secure"},
		{"dane", "mx1.example.org", `tls-policy <t> "x": level dane is not supported yet`},
		{"sts", "mx1.example.org", "level sts is not supported yet"},
		{"dane-only", "mx1.example.org", "level dane-only is not supported yet"},
	}
	ca := newAuthority(t)
	for _, tt := range tests {
		t.Run(tt.row+"/"+tt.cert, func(t *testing.T) {
			t.Parallel()
			w, p := newWorld(t), newPeer(t)
			w.lookup.roots.AddCert(ca.cert)
			p.tls = serverTLS(ca.good(t, tt.cert))
			w.at("192.0.2.1:25", p.start())
			w.lookup.set(lookup.Route{Policy: policyRow(t, tt.row)})
			j := job(1, "x@example.org")
			res := w.start().deliver(j)[0]
			if res.Outcome == queue.Delivered && res.Security.Had == tt.want {
				return
			}
			if res.Outcome != queue.Deferred || !strings.Contains(res.Text+w.log.String(), tt.want) || len(p.got()) > 0 {
				t.Errorf("%s %+v, want %s", stat(res), res.Security, tt.want)
			}
		})
	}
}

// The result and the line of a delivery say the level wanted, who wanted it, and
// the level had.
func TestSecurityTold(t *testing.T) {
	ca := newAuthority(t)
	tests := map[string]struct {
		scheme lookup.Scheme
		row    string
		want   queue.Security
	}{
		"default":  {"smtp+tls", "", queue.Security{Wanted: "may", By: "smtp+tls://", Had: "verify"}},
		"clear":    {"smtp", "", queue.Security{Wanted: "none", By: "smtp://", Had: "none"}},
		"avoided":  {"smtp+tls", "none", queue.Security{Wanted: "none", By: `tls-policy <t> "x"`, Had: "none"}},
		"raised":   {"smtp+tls", "encrypt", queue.Security{Wanted: "encrypt", By: `tls-policy <t> "x"`, Had: "verify"}},
		"not less": {"tls", "encrypt", queue.Security{Wanted: "verify", By: "tls://", Had: "verify"}},
		"more":     {"tls", "secure", queue.Security{Wanted: "secure", By: `tls-policy <t> "x"`, Had: "verify"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := newWorld(t), newPeer(t)
			w.lookup.roots.AddCert(ca.cert)
			p.tls = serverTLS(ca.good(t, "192.0.2.3"))
			w.at("192.0.2.3:25", p.start())
			w.relay(lookup.RelayURL{Scheme: tt.scheme, Host: "192.0.2.3", Port: "25", Policy: policyRow(t, tt.row)})
			if tt.want.Wanted == "secure" {
				tt.want.Had = "secure"
			}
			if res := w.start().one("x@example.org"); res.Security != tt.want {
				t.Errorf("%+v, want %+v: %s", res.Security, tt.want, stat(res))
			}
			line := fmt.Sprintf("tls=%s wanted=%s by=", tt.want.Had, tt.want.Wanted)
			if !strings.Contains(w.log.String(), line) {
				t.Errorf("no %q in\n%s", line, w.log)
			}
		})
	}
	w := newWorld(t).relay(lookup.RelayURL{Scheme: "tls", Host: "192.0.2.3", Port: "25"})
	if res := w.start().one("x@example.org"); res.Security != (queue.Security{Wanted: "verify", By: "tls://"}) {
		t.Errorf("nobody there: %+v", res.Security)
	}
}

// A session serves the next message only if it keeps what that one asks for.
func TestReuseMeetsPolicy(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.good(t, "192.0.2.3")
	pin := fmt.Sprintf("fingerprint=%x", sha256.Sum256(cert.Leaf.Raw))
	steps := []struct {
		row     string
		require bool
		conns   int // connections there have been after this message
	}{
		{"", false, 1},
		{"may", false, 1},
		{"encrypt", false, 1},
		{"verify", false, 1}, // the certificate was verified anyway
		{pin, false, 1},
		{"encrypt protocols=TLSv1.3", false, 1},
		{"encrypt protocols=TLSv1.2", false, 2},
		{"verify match=192.0.2.3:other.example", false, 3},
		{"", true, 3},
	}
	w, p := newWorld(t), newPeer(t)
	w.lookup.roots.AddCert(ca.cert)
	p.tls = serverTLS(cert)
	p.ehlo = append(p.ehlo, "REQUIRETLS")
	w.at("192.0.2.3:25", p.start())
	w.start()
	for i, step := range steps {
		w.relay(lookup.RelayURL{Scheme: "smtp+tls", Host: "192.0.2.3", Port: "25", Policy: policyRow(t, step.row)})
		j := job(i+1, "x@example.org")
		j.Message.RequireTLS = step.require
		wantResult(t, w.deliver(j)[0], queue.Delivered, 250)
		if n := p.connections(); n != step.conns {
			t.Errorf("step %d (%q): %d connections, want %d", i, step.row, n, step.conns)
		}
	}
}

// A session in clear is of no use to a message that must be encrypted, and one
// to a server without a verified certificate is none for one that wants that.
func TestLesserSessionNotReused(t *testing.T) {
	for _, row := range []string{"encrypt", "verify", "fingerprint=" + strings.Repeat("ab", 32)} {
		t.Run(row, func(t *testing.T) {
			w, p := newWorld(t), newPeer(t)
			if row != "encrypt" {
				p.tls = serverTLS((*authority)(nil).leaf(t, "192.0.2.3", time.Now().Add(time.Hour)))
			}
			w.at("192.0.2.3:25", p.start()).start()
			url := lookup.RelayURL{Scheme: "smtp+tls", Host: "192.0.2.3", Port: "25"}
			wantResult(t, w.relay(url).one("x@example.org"), queue.Delivered, 250)
			url.Policy = policyRow(t, row)
			wantResult(t, w.relay(url).one("x@example.org"), queue.Deferred, 0)
			if n := len(p.got()); n != 1 {
				t.Errorf("%d messages", n)
			}
			// The lesser session is still good for lesser demands.
			url.Policy = nil
			wantResult(t, w.relay(url).one("x@example.org"), queue.Delivered, 250)
			if mails := p.got(); len(mails) != 2 || mails[1].conn != 1 {
				t.Errorf("not over the first connection: %+v", mails)
			}
		})
	}
}

// TLS-Required: No takes back what a table wants, and nothing else.
func TestTLSOptional(t *testing.T) {
	tests := []struct {
		scheme lookup.Scheme
		row    string
		tls    bool // the action's
		want   queue.Outcome
	}{
		{"smtp+tls", "encrypt", false, queue.Delivered},
		{"smtp+tls", "secure", false, queue.Delivered},
		{"smtp+tls", "dane", false, queue.Delivered},
		{"smtp", "encrypt", false, queue.Delivered},
		{"tls", "encrypt", false, queue.Deferred},
		{"smtp+tls", "", true, queue.Deferred},
	}
	for _, tt := range tests {
		for _, require := range []bool{false, true} {
			w, p := newWorld(t), newPeer(t)
			w.at("192.0.2.3:25", p.start())
			w.lookup.set(lookup.Route{TLS: tt.tls, Hosts: []lookup.RelayURL{
				{Scheme: tt.scheme, Host: "192.0.2.3", Port: "25", Policy: policyRow(t, tt.row)}}})
			j := job(1, "MARK-x@example.org")
			j.Message.TLSOptional, j.Message.RequireTLS = true, require
			want := tt.want
			if require { // goes before the header field
				want = queue.Failed
			}
			if tt.row == "dane" && require {
				want = queue.Deferred
			}
			wantResult(t, w.start().deliver(j)[0], want, 0)
			if strings.Contains(p.onWire(), "MARK") != (want == queue.Delivered) {
				t.Errorf("%+v, REQUIRETLS %t: dialogue\n%s", tt, require, p.said())
			}
		}
	}
}

// Each combination of what parties want is at least what each of them wants.
func TestNobodyWeakens(t *testing.T) {
	rows := []string{"", "none", "may", "encrypt", "verify", "secure", "fingerprint=" + strings.Repeat("ab", 32)}
	channels := map[string]channel{
		"clear": {}, "encrypted": {encrypted: true, version: tls.VersionTLS13},
		"verified": {encrypted: true, version: tls.VersionTLS13, names: []string{relayName}, verdict: lookup.Verdict{State: lookup.Verified}},
	}
	for _, scheme := range []lookup.Scheme{"smtp+tls", "tls", "smtps", "ssl"} {
		for _, row := range rows {
			for _, message := range []string{"", "require", "optional"} {
				route := lookup.Route{Hosts: []lookup.RelayURL{{Scheme: scheme, Host: relayName, Port: "25", Policy: policyRow(t, row)}}}
				d := &destination{route: route}
				d.serve(&queue.Message{Sender: "x@y.example", RequireTLS: message == "require", TLSOptional: message == "optional"})
				h := &host{scheme: scheme, nexthop: relayName, name: relayName, port: "25"}
				p, err := decide(t.Context(), h, d.parties(h))
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range slices.Sorted(maps.Keys(channels)) {
					bare, err := newPolicy(scheme, &lookup.Route{})
					if err != nil {
						t.Fatal(err)
					}
					c := channels[name]
					if bare.permits(c) != nil && p.permits(c) == nil {
						t.Errorf("%s with row %q and message %q permits what is %s", scheme, row, message, name)
					}
					if message == "require" && p.permits(c) == nil {
						t.Errorf("%s with row %q permits what is %s to a message with REQUIRETLS", scheme, row, name)
					}
				}
				if scheme != "smtp+tls" {
					walk(t, p, p.first("25"), 0)
				}
			}
		}
	}
}
