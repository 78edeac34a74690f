package smtpd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/internal/count/counttest"
	"tabard/internal/logging/logtest"
	"tabard/internal/selfca"
	"tabard/lookup"
	"tabard/table"
)

// issuer makes certificates of every kind for clients.
type issuer struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newIssuer(t *testing.T, name string) *issuer {
	t.Helper()
	i := &issuer{t: t}
	made := (*issuer)(nil).client(t, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames, c.IsCA, c.BasicConstraintsValid = name, nil, true, true
		c.KeyUsage, c.SubjectKeyId = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, []byte(name)
	})
	key, ok := made.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatal("not an ECDSA key")
	}
	i.key, i.cert = key, made.Leaf
	return i
}

// client makes a certificate; a nil issuer signs it with its own key.
func (i *issuer) client(t *testing.T, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "client"}, DNSNames: []string{"client.example"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(tmpl)
	}
	parent, by := tmpl, key
	if i != nil {
		parent, by = i.cert, i.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// bundle is the ca file: the issuer, and a list of what it revoked.
func (i *issuer) bundle(revoked *tls.Certificate) []byte {
	i.t.Helper()
	now := time.Now()
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.Leaf.SerialNumber, RevocationTime: now}}}, i.cert, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return slices.Concat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl}))
}

// clientKind is a client's certificate, and the verdict that it deserves where
// it is asked for.
type clientKind struct {
	name   string
	cert   *tls.Certificate // nil: none
	reason string           // empty: verified
}

func clientKinds(t *testing.T, ca *issuer, revoked *tls.Certificate) []clientKind {
	of := func(change func(*x509.Certificate)) *tls.Certificate { return ca.client(t, change) }
	return []clientKind{
		{"none", nil, ""},
		{"good", of(nil), ""},
		{"good, another's", of(func(c *x509.Certificate) { c.DNSNames = []string{"stranger.example"} }), ""},
		{"expired", of(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), lookup.ReasonExpired},
		{"not yet valid", of(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), lookup.ReasonNotYetValid},
		{"self-signed", (*issuer)(nil).client(t, nil), lookup.ReasonSelfSigned},
		{"wrong authority", newIssuer(t, "another CA").client(t, nil), lookup.ReasonAuthority},
		{"authority of the same name", newIssuer(t, "client CA").client(t, nil), lookup.ReasonAuthority},
		{"of a server", of(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), lookup.ReasonUsage},
		{"revoked", revoked, lookup.ReasonRevoked},
		{"NUL in a name", of(func(c *x509.Certificate) { c.DNSNames = []string{"client.example\x00.evil.example"} }), lookup.ReasonMalformed},
		{"1,000 names", of(func(c *x509.Certificate) {
			for n := range 999 {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("client%d.example", n))
			}
		}), lookup.ReasonTooManyNames},
	}
}

// oneUser is a table that knows one client's certificate.
type oneUser struct{}

func (oneUser) Lookup(_ context.Context, s table.Service, key string) (table.Row, error) {
	if s == table.CertAuth && key == "dns:client.example" {
		return table.Row{"joe"}, nil
	}
	return nil, table.ErrNotFound
}

func (oneUser) Check(context.Context, table.Service, string) (bool, error) { return false, nil }

func (oneUser) Fetch(context.Context, table.Service) ([]table.Row, error) { return nil, nil }

func (oneUser) Close() error { return nil }

// witness remembers what lookup was told of the last session.
type witness struct {
	lookup.Inbound
	mu   sync.Mutex
	told lookup.Session
}

func (w *witness) Recipient(ctx context.Context, r lookup.RecipientRequest) (lookup.RecipientReply, error) {
	w.mu.Lock()
	w.told = r.Session
	w.mu.Unlock()
	return w.Inbound.Recipient(ctx, r)
}

func (w *witness) last() lookup.Session {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told
}

// truth is a server with every kind of listener, on lookup itself.
type truth struct {
	t         *testing.T
	cfg       *config.Config
	witness   *witness
	queue     *fakeQueue
	log       *logtest.Buffer
	roots     *x509.CertPool
	listeners map[int]net.Addr
	server    *Server
}

// truthConf has every combination of TLS and verification that the language
// allows.
func truthConf(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ids sqlite:/ids.db\nca clients cert \"%[1]s/ca.pem\"\npki mx.example.org cert \"%[1]s/chain.pem\" key \"%[1]s/key.pem\"\n", dir)
	for _, mode := range []string{"tls", "tls-require", "smtps"} {
		for _, verify := range []string{"", "verify optional", "verify", "cert-auth <ids>", "verify cert-auth <ids>"} {
			if mode == "tls" && strings.HasPrefix(verify, "verify") && !strings.HasPrefix(verify, "verify o") {
				continue
			}
			fmt.Fprintf(&b, "listen on 127.0.0.1 port %d %s %s pki mx.example.org ca clients received-auth\n", 1000+strings.Count(b.String(), "\n"), mode, verify)
		}
	}
	b.WriteString(`action "out" relay
match tls verified from any for domain "verified.example" action "out"
match ! tls verified from any for domain "unverified.example" action "out"
match tls from any for domain "example.org" action "out"
`)
	return b.String()
}

func newTruth(t *testing.T, bundle []byte) *truth {
	t.Helper()
	tr := &truth{t: t, queue: &fakeQueue{}, log: &logtest.Buffer{}, roots: x509.NewCertPool(), listeners: map[int]net.Addr{}}
	dir := t.TempDir()
	ca := authority(t)
	tr.roots.AppendCertsFromPEM(ca.PEM())
	now := time.Now()
	chain, key, err := ca.Issue(selfca.Request{Names: []string{"mx.example.org"}, Key: selfca.ECDSA, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"ca.pem": bundle, "chain.pem": chain, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if tr.cfg, err = config.Parse("test.conf", []byte(truthConf(dir)), config.Options{}); err != nil {
		t.Fatal(err)
	}
	service, err := lookup.New(t.Context(), lookup.Options{Config: tr.cfg, Hostname: "mx.example.org", Roots: x509.NewCertPool(),
		Open: func(ctx context.Context, c config.Table) (table.Backend, error) {
			if c.Name == "ids" {
				return oneUser{}, nil
			}
			return static.Open(ctx, c, table.Options{})
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	tr.witness = &witness{Inbound: service}
	tr.serve()
	return tr
}

func (tr *truth) serve() {
	tr.t.Helper()
	srv, err := New(FromConfig(tr.cfg, "mx.example.org"), tr.witness, tr.queue, slog.New(slog.NewTextHandler(tr.log, nil)))
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.server = srv
	for i := range tr.cfg.Listeners {
		if tr.cfg.Listeners[i].Socket {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tr.t.Fatal(err)
		}
		tr.listeners[i] = l.Addr()
		go func() { _ = srv.Serve(context.Background(), i, l) }()
	}
	tr.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testPatience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			tr.t.Errorf("shutdown: %v", err)
		}
	})
}

// connect opens a session with a certificate, up to EHLO under TLS.
func (tr *truth) connect(t *testing.T, listener int, cert *tls.Certificate, version uint16) *client {
	t.Helper()
	conn, err := net.Dial("tcp", tr.listeners[listener].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: t}
	c.use(conn)
	cfg := &tls.Config{RootCAs: tr.roots, ServerName: "mx.example.org", MaxVersion: version}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	if tr.cfg.Listeners[listener].TLS == config.TLSImplicit {
		c.startTLS(cfg)
		c.expect("220")
	} else {
		c.expect("220")
		c.do("EHLO client.example", "250")
		c.do("STARTTLS", "220")
		c.startTLS(cfg)
	}
	c.do("EHLO client.example", "250")
	return c
}

// deserved is the verdict on a certificate at a listener, and who it logs in.
func deserved(l *config.Listener, k clientKind) (v lookup.Verdict, user string) {
	asked := l.Verify != config.VerifyNone || l.CertAuth != ""
	switch {
	case !asked || k.cert == nil:
		return lookup.Verdict{}, ""
	case k.reason != "":
		return lookup.Verdict{State: lookup.Failed, Reason: k.reason}, ""
	case l.CertAuth != "" && k.name == "good":
		user = "joe"
	}
	return lookup.Verdict{State: lookup.Verified, Identity: "CN=client"}, user
}

// TestVerdictIsTheTruth: at every kind of listener, with every kind of client
// certificate, what the log, the rules, Received and the metrics say is what was
// found, and what a listener demands is demanded.
func TestVerdictIsTheTruth(t *testing.T) {
	ca := newIssuer(t, "client CA")
	revoked := ca.client(t, nil)
	tr := newTruth(t, ca.bundle(revoked))
	kinds := clientKinds(t, ca, revoked)
	for i := range tr.listeners {
		l := &tr.cfg.Listeners[i]
		for _, k := range kinds {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(fmt.Sprintf("%s/%s/%s", l.Pos, k.name, tls.VersionName(version)), func(t *testing.T) {
					tr.check(t, i, k, version)
				})
			}
		}
	}
	if len(tr.listeners) != 13 {
		t.Errorf("%d kinds of listener", len(tr.listeners))
	}
}

func (tr *truth) check(t *testing.T, listener int, k clientKind, version uint16) {
	l := &tr.cfg.Listeners[listener]
	want, user := deserved(l, k)
	logged, stored, counted := len(tr.log.String()), len(tr.queue.all()), countOf(tr.server, "tabard_tls_verdicts_total")
	c := tr.connect(t, listener, k.cert, version)
	defer func() { tr.counted(t, counted, want) }()
	line := ""
	if want.State != lookup.Unchecked {
		line = fmt.Sprintf("result=%s identity=%s reason=%s", want.State, quoted(want.Identity), quoted(want.Reason))
	}
	if got := certCheck(tr.log.String()[logged:]); got != line {
		t.Errorf("log: %s; want %s", got, line)
	}
	if l.Verify == config.VerifyRequire && want.State != lookup.Verified {
		c.do("MAIL FROM:<a@b.example>", strings.TrimSpace("550 5.7.1 Client certificate "+want.State.String()+" "+want.Reason))
		return
	}
	c.envelope()
	if told := tr.witness.last(); told.Peer != want || told.User != user || !told.TLS {
		t.Errorf("rules: %+v, user %q; want %+v, %q", told.Peer, told.User, want, user)
	}
	verified, unverified := "550", "250"
	if want.State == lookup.Verified {
		verified, unverified = unverified, verified
	}
	c.do("RCPT TO:<x@verified.example>", verified)
	c.do("RCPT TO:<x@unverified.example>", unverified)
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	all := tr.queue.all()
	if len(all) != stored+1 {
		t.Fatalf("%d messages, want %d", len(all), stored+1)
	}
	trace, _, _ := strings.Cut(all[stored].body, "\r\n\tfor ")
	if !strings.Contains(trace, ":"+want.State.String()+")") || strings.Contains(trace, "ESMTPSA") != (user != "") || strings.Contains(trace, "user=joe") != (user != "") {
		t.Errorf("Received: %q; want %s, user %q", trace, want.State, user)
	}
	c.do("QUIT", "221")
}

// counted wants one verdict more than there were, and that it is want.
func (tr *truth) counted(t *testing.T, before map[string]float64, want lookup.Verdict) {
	t.Helper()
	before[strings.Join([]string{"in", want.State.String(), want.Reason}, " ")]++
	if now := countOf(tr.server, "tabard_tls_verdicts_total"); !maps.Equal(now, before) {
		t.Errorf("metrics: %v; want %v", now, before)
	}
}

// countOf returns what a server has counted under a name, by the values of the
// labels, without what is zero.
func countOf(s *Server, name string) map[string]float64 {
	return counttest.Of(name, Counted(), s.count.Values())
}

// quoted is a value as the log writes it.
func quoted(v string) string {
	if v == "" || strings.Contains(v, "=") {
		return strconv.Quote(v)
	}
	return v
}

// certCheck is what a log says of the certificate, from the result on.
func certCheck(log string) string {
	var found []string
	for line := range strings.Lines(log) {
		if _, rest, ok := strings.Cut(line, `msg="smtp cert-check"`); ok {
			found = append(found, strings.TrimSpace(rest[max(strings.Index(rest, "result="), 0):]))
		}
	}
	return strings.Join(found, "; ")
}

// Without TLS there is no verdict, and no rule that wants TLS fits.
func TestNoTLSNoVerdict(t *testing.T) {
	ca := newIssuer(t, "client CA")
	tr := newTruth(t, ca.bundle(ca.client(t, nil)))
	for i, addr := range tr.listeners {
		if tr.cfg.Listeners[i].TLS != config.TLSStart {
			continue
		}
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		c := &client{t: t}
		c.use(conn)
		c.expect("220")
		c.do("EHLO client.example", "250")
		c.do("MAIL FROM:<a@client.example>", "250")
		c.do("RCPT TO:<b@example.org>", "550")
		if told := tr.witness.last(); told.TLS || told.Peer != (lookup.Verdict{}) {
			t.Errorf("rules: %+v", told)
		}
	}
	if strings.Contains(tr.log.String(), "cert-check") {
		t.Error("a verdict without a certificate")
	}
}
