package lookup

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tabard/table"
)

const verifyConf = `
table anchors sqlite:/mem/anchors
table certs sqlite:/mem/certs
listen on 127.0.0.1 port 25 tls-require verify pki <certs> ca <anchors>
listen on 127.0.0.1 port 26 tls pki <certs>
action "out" relay ca <anchors>
action "public" relay
match from any for any action "out"
`

// ders returns the certificates of PEM texts.
func ders(texts ...string) (out [][]byte) {
	for _, text := range texts {
		for rest := []byte(text); ; {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			out = append(out, b.Bytes)
		}
	}
	return out
}

// leafOf issues a certificate and returns its PEM.
func (a *authority) leafOf(change func(*x509.Certificate), names ...string) string {
	chain, _ := a.server("ecdsa", change, names...)
	return chain
}

func TestVerify(t *testing.T) {
	f := newFixture(t)
	s := f.service(verifyConf)
	root := newAuthority(t, "root", nil)
	inter := newAuthority(t, "inter", root)
	inner := newAuthority(t, "inner", inter)
	stranger := newAuthority(t, "stranger", nil)
	f.table("anchors").set(table.CA, "*", root.pem())
	late := &authority{t: t, key: inter.key}
	late.cert = root.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "late"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(-time.Hour)}, late.key)
	narrow := &authority{t: t, key: inter.key}
	narrow.cert = root.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "narrow"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"only.example"}}, narrow.key)
	notCA := &authority{t: t, key: inter.key}
	notCA.cert = root.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "no CA"}, BasicConstraintsValid: true}, notCA.key)

	usage := func(u x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
	}
	plain := root.leafOf(nil, "mx.example", "*.wild.example", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.example")
	deep := inner.leafOf(nil, "mx.example")
	ok := func(id string) Verdict { return Verdict{State: Verified, Identity: id} }
	tests := []struct {
		name  string
		chain []string
		use   Use
		peer  string
		want  Verdict
	}{
		{"good", []string{plain}, UseServer, "mx.example", ok("mx.example")},
		{"good, other case and dot", []string{plain}, UseServer, "MX.Example.", ok("mx.example")},
		{"wildcard", []string{plain}, UseServer, "a.wild.example", ok("a.wild.example")},
		{"wildcard is one label", []string{plain}, UseServer, "a.b.wild.example", failed("wrong-name")},
		{"wildcard is not the parent", []string{plain}, UseServer, "wild.example", failed("wrong-name")},
		{"address", []string{plain}, UseServer, "192.0.2.1", ok("192.0.2.1")},
		{"address literal", []string{plain}, UseServer, "[192.0.2.1]", ok("192.0.2.1")},
		{"address v6", []string{plain}, UseServer, "2001:db8::1", ok("2001:db8::1")},
		{"other address", []string{plain}, UseServer, "192.0.2.2", failed("wrong-name")},
		{"U-label", []string{plain}, UseServer, "bücher.example", ok("xn--bcher-kva.example")},
		{"wrong name", []string{plain}, UseServer, "other.example", failed("wrong-name")},
		{"no name to verify", []string{plain}, UseServer, "", failed("wrong-name")},
		{"not a name", []string{plain}, UseServer, "mx example", failed("wrong-name")},
		{"chain", []string{deep, inner.pem(), inter.pem()}, UseServer, "mx.example", ok("mx.example")},
		{"chain in disorder", []string{deep, inter.pem(), stranger.pem(), inner.pem(), root.pem()}, UseServer, "mx.example", ok("mx.example")},
		{"chain with a hole", []string{deep, inter.pem()}, UseServer, "mx.example", failed("unknown-authority")},
		{"expired", []string{root.leafOf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, "mx.example")}, UseServer, "mx.example", failed("expired")},
		{"not yet valid", []string{root.leafOf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "mx.example")}, UseServer, "mx.example", failed("not-yet-valid")},
		{"expired intermediate", []string{late.leafOf(nil, "mx.example"), late.pem()}, UseServer, "mx.example", failed("expired")},
		{"unknown CA", []string{stranger.leafOf(nil, "mx.example")}, UseServer, "mx.example", failed("unknown-authority")},
		{"unknown CA in the chain", []string{stranger.leafOf(nil, "mx.example"), stranger.pem()}, UseServer, "mx.example", failed("unknown-authority")},
		{"self-signed", []string{stranger.pem()}, UseServer, "mx.example", failed("self-signed")},
		{"issuer is no CA", []string{notCA.leafOf(nil, "mx.example"), notCA.pem()}, UseServer, "mx.example", failed("unknown-authority")},
		{"common name only", []string{root.leafOf(func(c *x509.Certificate) { c.DNSNames = nil }, "mx.example")}, UseServer, "mx.example", failed("no-san")},
		{"client usage on a server", []string{root.leafOf(usage(x509.ExtKeyUsageClientAuth), "mx.example")}, UseServer, "mx.example", failed("wrong-usage")},
		{"server usage on a client", []string{root.leafOf(usage(x509.ExtKeyUsageServerAuth), "mx.example")}, UseClient, "", failed("wrong-usage")},
		{"client", []string{root.leafOf(usage(x509.ExtKeyUsageClientAuth), "mx.example")}, UseClient, "", ok("CN=mx.example")},
		{"client with no usage", []string{plain}, UseClient, "", ok("CN=mx.example")},
		{"name constraints kept", []string{narrow.leafOf(nil, "a.only.example"), narrow.pem()}, UseServer, "a.only.example", ok("a.only.example")},
		{"name constraints broken", []string{narrow.leafOf(nil, "mx.example"), narrow.pem()}, UseServer, "mx.example", failed("name-constraint")},
		{"hostile subject", []string{root.leafOf(func(c *x509.Certificate) { c.Subject.CommonName = "a\r\nb\x00c" }, "x.example")}, UseClient, "", ok("CN=a b?c")},
	}
	for _, tt := range tests {
		got, err := s.Verify(t.Context(), VerifyRequest{Action: actionFor(tt.use), Use: tt.use, Name: tt.peer, Chain: ders(tt.chain...)})
		if got != tt.want || err != nil {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

func actionFor(u Use) string {
	if u == UseClient {
		return ""
	}
	return "out"
}

func TestVerifyMalformed(t *testing.T) {
	f := newFixture(t)
	s := f.service(verifyConf)
	root := newAuthority(t, "root", nil)
	f.table("anchors").set(table.CA, "*", root.pem())
	good := ders(root.leafOf(nil, "mx.example"))[0]
	for name, chain := range map[string][][]byte{
		"junk": {[]byte("junk")}, "empty certificate": {{}}, "cut": {good[:len(good)-5]}, "trailing": {append(slices.Clone(good), 0)},
		"junk behind": {good, []byte("junk")},
	} {
		got, err := s.Verify(t.Context(), VerifyRequest{Action: "out", Use: UseServer, Name: "mx.example", Chain: chain})
		if got != failed("malformed") || err != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := s.Verify(t.Context(), VerifyRequest{Action: "out", Use: UseServer, Name: "mx.example"}); got != (Verdict{}) || got.State.String() != "unchecked" || err != nil {
		t.Errorf("no chain: %+v, %v", got, err)
	}
}

// Which trust anchors are in force.
func TestAuthorities(t *testing.T) {
	system, mine, partner, file := newAuthority(t, "system", nil), newAuthority(t, "mine", nil), newAuthority(t, "partner", nil), newAuthority(t, "file", nil)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte(file.pem()), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	s := f.service(`
table anchors sqlite:/mem/anchors
ca "file" cert "` + path + `"
listen on 127.0.0.1
action "table" relay ca <anchors>
action "file" relay ca "file"
action "system" relay
match from any for any action "table"
`)
	s.anchors.system.pool.AddCert(system.cert)
	anchors := f.table("anchors")
	verdict := func(action string, a *authority, name string) string {
		v, err := s.Verify(t.Context(), VerifyRequest{Action: action, Use: UseServer, Name: name, Chain: ders(a.leafOf(nil, name))})
		if err != nil {
			return "error"
		}
		return v.State.String()
	}
	check := func(action string, a *authority, name, want string) {
		t.Helper()
		if got := verdict(action, a, name); got != want {
			t.Errorf("%s, CA %s, %s: %s, want %s", action, a.cert.Subject.CommonName, name, got, want)
		}
	}
	check("table", mine, "a.example", "failed")
	check("table", system, "a.example", "verified") // no row: the world's server
	if p := s.withoutRow(UseClient).pool; p.Equal(s.anchors.system.pool) || !p.Equal(x509.NewCertPool()) {
		t.Error("a client without a row is judged by the world's authorities")
	}
	anchors.set(table.CA, "mx.example.org", mine.pem())
	check("table", mine, "a.example", "failed") // that row is not for it
	anchors.set(table.CA, "*", mine.pem())
	check("table", mine, "a.example", "verified")
	check("table", system, "a.example", "failed") // the row replaces the system's
	anchors.set(table.CA, "*.partner.example", partner.pem())
	check("table", partner, "mx.partner.example", "verified")
	check("table", partner, "a.example", "failed")
	check("table", mine, "mx.partner.example", "failed")
	anchors.remove(table.CA, "*")
	check("table", mine, "a.example", "failed")
	anchors.set(table.CA, "*", mine.pem(), partner.pem())
	check("table", partner, "a.example", "verified")
	anchors.set(table.CA, "*", "junk")
	check("table", partner, "a.example", "error")
	anchors.fail(errDown)
	check("table", partner, "a.example", "error")
	check("file", file, "a.example", "verified")
	check("file", system, "a.example", "failed")
	check("system", system, "a.example", "verified")
	check("system", mine, "a.example", "failed")
	check("nosuch", mine, "a.example", "error")
	check("", system, "a.example", "verified") // a bounce
	if err := os.WriteFile(path, []byte(mine.pem()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("file", mine, "a.example", "verified")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("file", mine, "a.example", "error")
}

func TestVerifyTableDown(t *testing.T) {
	f := newFixture(t)
	s := f.service(verifyConf)
	f.table("anchors").fail(errDown)
	leaf := ders(newAuthority(t, "CA", nil).leafOf(nil, "a.example"))
	if v, err := s.Verify(t.Context(), VerifyRequest{Use: UseClient, Chain: leaf}); !errors.Is(err, errDown) {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := s.Verify(t.Context(), VerifyRequest{Use: UseClient, Listener: 9, Chain: leaf}); err == nil {
		t.Error("unknown listener: no error")
	}
}

// The verdict on what a real peer presents in a handshake, both directions,
// across the process border.
func TestVerifyHandshake(t *testing.T) {
	f := newFixture(t)
	s := f.service(verifyConf)
	in, out, _ := edges(t, s)
	ca := newAuthority(t, "CA", nil)
	f.table("anchors").set(table.CA, "*", ca.pem())
	chain, key := ca.server("ecdsa", nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	own, ownKey := ca.server("ecdsa", nil, "peer.example")
	pair, err := tls.X509KeyPair([]byte(own), []byte(ownKey))
	if err != nil {
		t.Fatal(err)
	}
	server := serverTLS(in)
	server.ClientAuth = tls.RequestClientCert
	srv, cli, err := handshake(t, server, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.org", Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	raw := func(certs []*x509.Certificate) (out [][]byte) {
		for _, c := range certs {
			out = append(out, c.Raw)
		}
		return out
	}
	id, err := in.Identify(t.Context(), VerifyRequest{Use: UseClient, Chain: raw(srv.PeerCertificates)})
	if id.Verdict != (Verdict{State: Verified, Identity: "CN=peer.example"}) || err != nil {
		t.Errorf("client: %+v, %v", id, err)
	}
	v, err := out.Verify(t.Context(), VerifyRequest{Use: UseServer, Action: "out", Name: "mx.example.org", Chain: raw(cli.PeerCertificates)})
	if v != (Verdict{State: Verified, Identity: "mx.example.org"}) || err != nil {
		t.Errorf("server: %+v, %v", v, err)
	}
}

func FuzzVerify(f *testing.F) {
	ca := root(f, "ecdsa", "root", nil)
	fix := newFixture(f)
	s := fix.service(verifyConf)
	inter := ca.under("ecdsa", "inter", nil)
	fix.table("anchors").set(table.CA, "*", ca.pem(), ca.crl(1, day), inter.crl(1, day))
	leaf := ders(inter.leafOf(nil, "mx.example"))[0]
	f.Add(leaf, inter.cert.Raw, "mx.example")
	f.Add([]byte("junk"), []byte{}, "[::1]")
	f.Add(ders(newAuthority(f, "stranger", nil).leafOf(nil, "mx.example"))[0], leaf, "mx.example")
	f.Add(ca.withKey(ecKey(f, asn1.ObjectIdentifier{1, 3, 132, 0, 10})), ca.cert.Raw, "mx.example")
	f.Fuzz(func(t *testing.T, der, other []byte, name string) {
		for _, r := range []VerifyRequest{{Action: "out", Use: UseServer, Name: name}, {Use: UseClient}} {
			r.Chain = [][]byte{der, other, der}
			v, err := s.Verify(t.Context(), r)
			if err != nil || v.State == Unchecked || (v.State == Failed) != slices.Contains(Reasons(), v.Reason) {
				t.Fatalf("%+v, %v", v, err)
			}
		}
	})
}
