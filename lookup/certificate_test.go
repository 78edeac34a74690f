package lookup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/table"
)

const certConf = `
table certs sqlite:/mem/certs
listen on 127.0.0.1 port 25 tls pki <certs>
listen on 127.0.0.1 port 26 tls pki <certs> hostname "second.example.org"
action "out" relay pki <certs> helo "client.example.org"
action "plain" relay
match from any for any action "out"
`

// served is the first name in the certificate that a listener serves.
func served(t testing.TB, s *Service, r CertificateRequest) string {
	t.Helper()
	c, err := s.Certificate(t.Context(), r)
	if err != nil {
		return "error: " + err.Error()
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf.DNSNames[0]
}

func TestCertificateByName(t *testing.T) {
	f := newFixture(t)
	s := f.service(certConf)
	ca := newAuthority(t, "test CA", nil)
	for _, name := range []string{"mx.example.org", "a.example.org", "*.example.org", "second.example.org", "client.example.org", "xn--bcher-kva.example"} {
		chain, key := ca.server("ecdsa", nil, name)
		f.table("certs").set(table.Cert, name, chain, key)
	}
	tests := []struct {
		listener  int
		sni, want string
	}{
		{0, "a.example.org", "a.example.org"}, {0, "A.Example.ORG.", "a.example.org"}, {0, "b.example.org", "*.example.org"},
		{0, "b.c.example.org", "mx.example.org"}, {0, "other.example", "mx.example.org"}, {0, "", "mx.example.org"},
		{1, "", "second.example.org"}, {1, "a.example.org", "a.example.org"}, {0, "bücher.example", "xn--bcher-kva.example"},
		{0, "127.0.0.1", "mx.example.org"}, {0, "*.example.org", "mx.example.org"}, {0, "\x00\n", "mx.example.org"},
		{0, strings.Repeat("x", 9000), "mx.example.org"},
	}
	for _, tt := range tests {
		if got := served(t, s, CertificateRequest{Listener: tt.listener, ServerName: tt.sni}); got != tt.want {
			t.Errorf("listener %d, SNI %.40q: %s, want %s", tt.listener, tt.sni, got, tt.want)
		}
	}
	if got := served(t, s, CertificateRequest{Action: "out"}); got != "client.example.org" {
		t.Errorf("client: %s", got)
	}
	for name, r := range map[string]CertificateRequest{"no pki": {Action: "plain"}, "no action": {Action: "nosuch"}, "no listener": {Listener: 5}} {
		if c, err := s.Certificate(t.Context(), r); err == nil {
			t.Errorf("%s: %+v", name, c.Fingerprint)
		}
	}
	f.table("certs").remove(table.Cert, "mx.example.org")
	if _, err := s.Certificate(t.Context(), CertificateRequest{}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("nothing for the default: %v", err)
	}
	chain, key := ca.server("ecdsa", nil, "star.example")
	f.table("certs").set(table.Cert, "*", base64.StdEncoding.EncodeToString([]byte(key+chain)))
	if got := served(t, s, CertificateRequest{}); got != "star.example" {
		t.Errorf("the row *: %s", got)
	}
}

func TestCertificateHave(t *testing.T) {
	f := newFixture(t)
	s := f.service(certConf)
	chain, key := newAuthority(t, "CA", nil).server("ecdsa", nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	first, err := s.Certificate(t.Context(), CertificateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Certificate(t.Context(), CertificateRequest{Have: first.Fingerprint})
	if err != nil || again.Chain != nil || again.Fingerprint != first.Fingerprint || again.Handle == "" {
		t.Errorf("%+v, %v", again, err)
	}
	if strings.Contains(first.Handle, "mx") {
		t.Errorf("the handle %q is not opaque", first.Handle)
	}
}

// One row with two certificates, and two rows of one name: the kind of key that
// the peer can verify is served, ECDSA when it can both.
func TestCertificateChoice(t *testing.T) {
	ca := newAuthority(t, "CA", nil)
	ec, ecKey := ca.server("ecdsa", nil, "ecdsa.example")
	rs, rsKey := ca.server("rsa", nil, "rsa.example")
	ed, edKey := ca.server("ed25519", nil, "ed25519.example")
	late, _ := ca.server("ecdsa", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-time.Hour) }, "late.example")
	_ = late
	offer := func(s ...tls.SignatureScheme) (out []uint16) {
		for _, v := range s {
			out = append(out, uint16(v))
		}
		return out
	}
	tests := []struct {
		offered []uint16
		want    string
	}{
		{nil, "ecdsa.example"},
		{offer(tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256), "ecdsa.example"},
		{offer(tls.PSSWithSHA256), "rsa.example"},
		{offer(tls.PKCS1WithSHA256), "rsa.example"},
		{offer(tls.Ed25519, tls.PSSWithSHA256), "ed25519.example"},
		{offer(tls.ECDSAWithP384AndSHA384), "ecdsa.example"}, // nothing fits: the handshake will say so
	}
	for _, row := range [][]string{{rs, rsKey, ec, ecKey, ed, edKey}, {rs + ec + ed, edKey + rsKey + ecKey}, {rs + rsKey + ed + edKey + ec + ecKey}} {
		f := newFixture(t)
		s := f.service(certConf)
		f.table("certs").set(table.Cert, "mx.example.org", row...)
		for _, tt := range tests {
			if got := served(t, s, CertificateRequest{Schemes: tt.offered}); got != tt.want {
				t.Errorf("%d columns, offered %v: %s, want %s", len(row), tt.offered, got, tt.want)
			}
		}
	}
}

// A successor waits beside its predecessor until it is valid.
func TestCertificateSuccessor(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.clock = func() time.Time { return now }
	s := f.service(certConf)
	ca := newAuthority(t, "CA", nil)
	chain, key := ca.server("ecdsa", func(c *x509.Certificate) { c.NotAfter = now.Add(10 * day) }, "old.example")
	next, nextKey := ca.server("ecdsa", func(c *x509.Certificate) { c.NotBefore = now.Add(5 * day) }, "new.example")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key, next, nextKey)
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, "old.example"}, {4 * day, "old.example"}, {6 * day, "new.example"}, {11 * day, "new.example"}} {
		now = time.Now().Add(step.after)
		if got := served(t, s, CertificateRequest{}); got != step.want {
			t.Errorf("after %s: %s, want %s", step.after, got, step.want)
		}
	}
	if faults := s.CertificateFaults(); len(faults) != 0 {
		t.Errorf("faults: %+v", faults)
	}
}

// A replacement that cannot be served never displaces what is served; the fault
// is listed, logged once, and gone when the row is mended.
func TestBrokenReplacement(t *testing.T) {
	ca := newAuthority(t, "CA", nil)
	good, goodKey := ca.server("ecdsa", nil, "good.example")
	other, otherKey := ca.server("ecdsa", nil, "other.example")
	expired, expiredKey := ca.server("ecdsa", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }, "expired.example")
	future, futureKey := ca.server("ecdsa", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "future.example")
	p224 := makeKey(t, "p224")
	weak := certPEM(ca.sign(&x509.Certificate{DNSNames: []string{"weak.example"}}, p224))
	rsa1024 := makeKey(t, "rsa1024")
	short := certPEM(ca.sign(&x509.Certificate{DNSNames: []string{"short.example"}}, rsa1024))
	for name, tt := range map[string]struct {
		row           []string
		cause, reason string
	}{
		"short RSA key":  {[]string{short, keyPEM(t, rsa1024)}, "1024 bits", ReasonWeakKey},
		"mismatch":       {[]string{other, goodKey}, "match", FaultMismatch},
		"expired":        {[]string{expired, expiredKey}, "expired", ReasonExpired},
		"not yet valid":  {[]string{future, futureKey}, "not valid before", ReasonNotYetValid},
		"no key":         {[]string{other, ""}, "PRIVATE KEY", FaultUnreadable},
		"no certificate": {[]string{otherKey}, "CERTIFICATE", FaultUnreadable},
		"junk":           {[]string{"junk", "more junk"}, "PEM", FaultUnreadable},
		"empty":          {[]string{"", ""}, "CERTIFICATE", FaultUnreadable},
		"cut off":        {[]string{other[:len(other)/2], otherKey}, "damaged", FaultUnreadable},
		"flipped":        {[]string{strings.Replace(other, "MII", "MIJ", 1), otherKey}, "certificate", FaultUnreadable},
		"weak curve":     {[]string{weak, keyPEM(t, p224)}, "P-224", ReasonUnsupportedKey},
		"missing file":   {[]string{other, "file:/nowhere/key.pem"}, "no such file", FaultUnavailable},
		"encrypted":      {[]string{other, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"}, "encrypted", FaultUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			s := f.service(certConf)
			certs := f.table("certs")
			certs.set(table.Cert, "mx.example.org", good, goodKey)
			if got := served(t, s, CertificateRequest{}); got != "good.example" {
				t.Fatalf("first: %s", got)
			}
			certs.set(table.Cert, "mx.example.org", tt.row...)
			for range 3 {
				if got := served(t, s, CertificateRequest{}); got != "good.example" {
					t.Fatalf("with the broken row: %s", got)
				}
			}
			faults := s.CertificateFaults()
			if len(faults) != 1 || !strings.Contains(faults[0].Cause, tt.cause) || faults[0].Name != "mx.example.org" || faults[0].Source != "table certs" || !faults[0].Serving || faults[0].Reason != tt.reason {
				t.Errorf("faults: %+v, want %q, %s", faults, tt.cause, tt.reason)
			}
			if n := strings.Count(f.log.String(), "certificate not in use"); n != 1 {
				t.Errorf("logged %d times", n)
			}
			if strings.Contains(f.log.String(), "BEGIN") {
				t.Error("the log shows the row")
			}
			certs.set(table.Cert, "mx.example.org", other, otherKey)
			if got := served(t, s, CertificateRequest{}); got != "other.example" || len(s.CertificateFaults()) != 0 {
				t.Errorf("mended: %s, %+v", got, s.CertificateFaults())
			}
		})
	}
}

// A broken row does not spoil another row of its name, not even at first sight.
func TestBrokenBesideGood(t *testing.T) {
	f := newFixture(t)
	s := f.service(certConf)
	ca := newAuthority(t, "CA", nil)
	good, goodKey := ca.server("rsa", nil, "good.example")
	other, _ := ca.server("ecdsa", nil, "other.example")
	f.table("certs").set(table.Cert, "mx.example.org", other, goodKey, good, goodKey)
	if got := served(t, s, CertificateRequest{}); got != "good.example" {
		t.Errorf("served %s", got)
	}
	if faults := s.CertificateFaults(); len(faults) != 1 || !faults[0].Serving || !strings.Contains(faults[0].Cause, "row 1") {
		t.Errorf("faults: %+v", faults)
	}
}

// The good certificate is served no longer than it is valid; without one the
// search goes on to the next name.
func TestBrokenForGood(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.clock = func() time.Time { return now }
	s := f.service(certConf)
	ca := newAuthority(t, "CA", nil)
	good, goodKey := ca.server("ecdsa", func(c *x509.Certificate) { c.NotAfter = now.Add(day) }, "good.example")
	star, starKey := ca.server("ecdsa", nil, "star.example")
	certs := f.table("certs")
	certs.set(table.Cert, "a.example.org", good, goodKey)
	certs.set(table.Cert, "*", star, starKey)
	ask := CertificateRequest{ServerName: "a.example.org"}
	if got := served(t, s, ask); got != "good.example" {
		t.Fatal(got)
	}
	certs.set(table.Cert, "a.example.org", "junk", "")
	if got := served(t, s, ask); got != "good.example" {
		t.Errorf("while it is valid: %s", got)
	}
	now = now.Add(2 * day)
	if got := served(t, s, ask); got != "star.example" {
		t.Errorf("when it has expired: %s", got)
	}
	if faults := s.CertificateFaults(); len(faults) != 1 || faults[0].Serving {
		t.Errorf("faults: %+v", faults)
	}
	certs.remove(table.Cert, "a.example.org")
	if got := served(t, s, ask); got != "star.example" || len(s.CertificateFaults()) != 0 {
		t.Errorf("row removed: %s, %+v", got, s.CertificateFaults())
	}
}

// A table that cannot be asked serves what it served; names never asked are an
// error, not the default.
func TestCertificateTableDown(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.clock = func() time.Time { return now }
	s := f.service(strings.Replace(certConf, "/mem/certs", "/mem/certs cache off", 1))
	ca := newAuthority(t, "CA", nil)
	chain, key := ca.server("ecdsa", nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	for _, sni := range []string{"", "known.example"} {
		if got := served(t, s, CertificateRequest{ServerName: sni}); got != "mx.example.org" {
			t.Fatal(got)
		}
	}
	f.table("certs").fail(errDown)
	for _, sni := range []string{"", "known.example"} {
		if got := served(t, s, CertificateRequest{ServerName: sni}); got != "mx.example.org" {
			t.Errorf("down, SNI %q: %s", sni, got)
		}
	}
	if _, err := s.Certificate(t.Context(), CertificateRequest{ServerName: "new.example"}); !errors.Is(err, errDown) {
		t.Errorf("a name never asked: %v", err)
	}
	now = now.Add(2 * staleTTL)
	if _, err := s.Certificate(t.Context(), CertificateRequest{}); !errors.Is(err, errDown) {
		t.Errorf("down for long: %v", err)
	}
	f.table("certs").fail(nil)
	if got := served(t, s, CertificateRequest{}); got != "mx.example.org" {
		t.Errorf("healed: %s", got)
	}
}

// A deleted row is not served any more.
func TestCertificateRemoved(t *testing.T) {
	f := newFixture(t)
	s := f.service(certConf)
	chain, key := newAuthority(t, "CA", nil).server("ecdsa", nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	served(t, s, CertificateRequest{})
	f.table("certs").remove(table.Cert, "mx.example.org")
	if got := served(t, s, CertificateRequest{}); !strings.HasPrefix(got, "error: no certificate") {
		t.Errorf("served %s", got)
	}
}

func TestPKIFiles(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, "CA", nil)
	put := func(file, text string) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, oneKey := ca.server("ecdsa", nil, "one.example", "alt.example")
	two, twoKey := ca.server("ecdsa", nil, "two.example")
	s := newFixture(t).service(`
pki one.example cert "` + put("one.pem", one) + `" key "` + put("one.key", oneKey) + `"
pki two.example cert "` + put("two.pem", two) + `" key "` + put("two.key", twoKey) + `"
listen on 127.0.0.1 tls pki two.example pki one.example
action "out" relay pki one.example
match from any for any action "out"
`)
	for sni, want := range map[string]string{"": "two.example", "one.example": "one.example", "alt.example": "one.example", "x.example": "two.example"} {
		if got := served(t, s, CertificateRequest{ServerName: sni}); got != want {
			t.Errorf("SNI %q: %s, want %s", sni, got, want)
		}
	}
	if got := served(t, s, CertificateRequest{Action: "out"}); got != "one.example" {
		t.Errorf("client: %s", got)
	}
	if problems := s.Check(t.Context()); len(problems) != 0 {
		t.Errorf("check: %v", problems)
	}
	next, nextKey := ca.server("ecdsa", nil, "next.example")
	put("two.pem", next)
	if got := served(t, s, CertificateRequest{}); got != "two.example" {
		t.Errorf("key not yet replaced: %s", got)
	}
	if problems := s.Check(t.Context()); len(problems) == 0 || !strings.Contains(problems[0].String(), "match") {
		t.Errorf("check: %v", problems)
	}
	put("two.key", nextKey)
	if got := served(t, s, CertificateRequest{}); got != "next.example" {
		t.Errorf("both replaced: %s", got)
	}
}

// edges serves s as the lookup process does and returns the other processes'
// ends.
func edges(t testing.TB, s *Service) (Inbound, Outbound, Local) {
	t.Helper()
	link := func(register func(*rpc.Server) error) rpc.Caller {
		srv := rpc.NewServer()
		if err := register(srv); err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- srv.Serve(context.Background(), far) }()
		client := rpc.NewClient(near)
		t.Cleanup(func() {
			_ = client.Close()
			<-done
		})
		return client
	}
	return NewInbound(link(func(r *rpc.Server) error { return RegisterInbound(r, s) })),
		NewOutbound(link(func(r *rpc.Server) error { return RegisterOutbound(r, s) })),
		NewLocal(link(func(r *rpc.Server) error { return RegisterLocal(r, s) }))
}

// serverTLS is what smtpd does.
func serverTLS(in Inbound) *tls.Config {
	return &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := in.Certificate(h.Context(), CertificateRequest{ServerName: h.ServerName, Schemes: OfferedSchemes(h)})
		if err != nil {
			return nil, err
		}
		return TLSCertificate(h.Context(), in, c)
	}}
}

func handshake(t testing.TB, server, client *tls.Config) (srv, cli tls.ConnectionState, err error) {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	deadline := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	ts, tc := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := ts.HandshakeContext(context.Background())
		if err == nil {
			_, err = ts.Write([]byte("x")) // carries TLS 1.3's last word, too
		}
		done <- err
	}()
	if err = tc.HandshakeContext(t.Context()); err == nil {
		_, err = tc.Read(make([]byte, 1))
	}
	if err != nil {
		_ = b.Close()
	}
	return ts.ConnectionState(), tc.ConnectionState(), errors.Join(err, <-done)
}

// Real handshakes with the key behind the process border, server and client
// side.
func TestHandshakes(t *testing.T) {
	ca := newAuthority(t, "CA", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	for _, kind := range []string{"ecdsa", "p384", "p521", "rsa", "ed25519"} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(kind+" "+tls.VersionName(version), func(t *testing.T) {
				f := newFixture(t)
				s := f.service(certConf)
				in, out, _ := edges(t, s)
				chain, key := ca.server(kind, nil, "mx.example.org")
				f.table("certs").set(table.Cert, "mx.example.org", chain, key)
				chain, key = ca.server(kind, nil, "client.example.org")
				f.table("certs").set(table.Cert, "client.example.org", chain, key)
				server := serverTLS(in)
				server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, pool
				client := &tls.Config{RootCAs: pool, ServerName: "mx.example.org", MinVersion: version, MaxVersion: version}
				client.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					c, err := out.Certificate(r.Context(), CertificateRequest{Action: "out"})
					if err != nil {
						return nil, err
					}
					return TLSCertificate(r.Context(), out, c)
				}
				srv, cli, err := handshake(t, server, client)
				if err != nil {
					t.Fatal(err)
				}
				if srv.PeerCertificates[0].DNSNames[0] != "client.example.org" || cli.PeerCertificates[0].DNSNames[0] != "mx.example.org" {
					t.Error("other certificates than expected")
				}
			})
		}
	}
}

// A client of TLS 1.2 with RSA suites only gets the RSA certificate, although it
// offers ECDSA signatures.
func TestHandshakeRSASuites(t *testing.T) {
	f := newFixture(t)
	in, _, _ := edges(t, f.service(certConf))
	ca := newAuthority(t, "CA", nil)
	ec, ecKey := ca.server("ecdsa", nil, "mx.example.org")
	rs, rsKey := ca.server("rsa", nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", ec, ecKey, rs, rsKey)
	for suite, want := range map[uint16]x509.PublicKeyAlgorithm{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: x509.RSA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: x509.ECDSA,
	} {
		_, cli, err := handshake(t, serverTLS(in), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
		if err != nil || cli.PeerCertificates[0].PublicKeyAlgorithm != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

// A row that is replaced while a handshake is under way does not break it, and
// serves the next one.
func TestReplacedBetweenCertificateAndSign(t *testing.T) {
	f := newFixture(t)
	in, _, _ := edges(t, f.service(certConf))
	ca := newAuthority(t, "CA", nil)
	chain, key := ca.server("ecdsa", nil, "mx.example.org")
	next, nextKey := ca.server("ecdsa", nil, "next.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	server := serverTLS(in)
	get := server.GetCertificate
	server.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := get(h)
		f.table("certs").set(table.Cert, "mx.example.org", next, nextKey)
		return c, err
	}
	for _, want := range []string{"mx.example.org", "next.example.org"} {
		_, cli, err := handshake(t, server, &tls.Config{InsecureSkipVerify: true})
		if err != nil || cli.PeerCertificates[0].DNSNames[0] != want {
			t.Errorf("want %s: %v", want, err)
		}
	}
}

func BenchmarkCertificate(b *testing.B) {
	f := newFixture(b)
	s := f.service(certConf)
	ca := newAuthority(b, "CA", nil)
	for name, row := range map[string]string{"mx.example.org": "ecdsa", "*.example.org": "ecdsa"} {
		chain, key := ca.server(row, nil, name)
		f.table("certs").set(table.Cert, name, chain, key)
	}
	for _, sni := range []string{"mx.example.org", "a.example.org", ""} {
		b.Run("sni="+sni, func(b *testing.B) {
			first, err := s.Certificate(b.Context(), CertificateRequest{ServerName: sni})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Certificate(b.Context(), CertificateRequest{ServerName: sni, Have: first.Fingerprint}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A handshake costs no question to the table when its row is known.
func TestCertificateQuestions(t *testing.T) {
	f := newFixture(t)
	s := f.service(certConf)
	chain, key := newAuthority(t, "CA", nil).server("ecdsa", nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	for i := range 3 {
		served(t, s, CertificateRequest{ServerName: "mx.example.org"})
		if n := f.table("certs").asked(); n != 1 {
			t.Errorf("%d questions for %d handshakes, want 1", n, i+1)
		}
	}
}
