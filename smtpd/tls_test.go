package smtpd

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/selfca"
	"tabard/lookup"
)

// TestRemoteSigner shakes hands with every kind of key and both versions; the
// server holds no key.
func TestRemoteSigner(t *testing.T) {
	for _, kind := range []selfca.KeyType{selfca.ECDSA, selfca.RSA, selfca.Ed25519} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(string(kind)+" "+tls.VersionName(version), func(t *testing.T) {
				r := start(t, withTLS(config.TLSStart))
				ca := authority(t)
				r.lookup.certs["mx.example.org"] = issue(t, ca, kind, "mx.example.org")
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(ca.PEM())
				c := r.hello()
				c.do("STARTTLS", "220 2.0.0")
				state := c.startTLS(&tls.Config{RootCAs: roots, ServerName: "mx.example.org", MaxVersion: version})
				if state.Version != version {
					t.Errorf("version %x", state.Version)
				}
				c.do("EHLO x", "250")
			})
		}
	}
}

func TestImplicitTLS(t *testing.T) {
	r := start(t, withTLS(config.TLSImplicit), withAuth(config.AuthRequire))
	c := r.dial()
	c.startTLS(&tls.Config{RootCAs: r.roots, ServerName: "MX.example.org"})
	c.expect("220 mx.example.org")
	got := c.do("EHLO x", "250")
	if strings.Contains(got, "STARTTLS") || !strings.Contains(got, "AUTH PLAIN LOGIN\r\n") {
		t.Errorf("EHLO under TLS: %q", got)
	}
	c.do("STARTTLS", "503")
	c.do("MAIL FROM:<a@b.example>", "530 5.7.0")
	c.do("QUIT", "221")
	c.gone()
}

// TestSTARTTLS: nothing said before TLS counts after it.
func TestSTARTTLS(t *testing.T) {
	r := start(t, withTLS(config.TLSRequire), withAuth(config.AuthOptional))
	c := r.hello()
	c.do("MAIL FROM:<a@b.example>", "530 5.7.0 Must issue a STARTTLS command first")
	c.do("STARTTLS now", "501")
	c.do("AUTH PLAIN AGEAYg==", "538 5.7.11")
	c.do("STARTTLS", "220")
	c.startTLS(&tls.Config{RootCAs: r.roots, ServerName: "mx.example.org"})
	c.do("MAIL FROM:<a@b.example>", "503 5.5.1 Please say EHLO")
	c.do("RCPT TO:<a@b.example>", "503")
	c.do("EHLO x", "250")
	c.envelope()
	c.do("STARTTLS", "503")
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	if got := r.only().body; !strings.Contains(got, " with ESMTPS id ") || !strings.Contains(got, " (TLSv1.3:TLS_") || !strings.Contains(got, ":unchecked)\r\n") {
		t.Errorf("trace: %q", got)
	}
	if s := r.lookup.sessions[0]; !s.TLS || s.Helo != "x" {
		t.Errorf("facts %+v", s)
	}
}

func TestSTARTTLSInTransaction(t *testing.T) {
	r := start(t, withTLS(config.TLSStart))
	c := r.hello()
	c.envelope()
	c.do("STARTTLS", "503 5.5.1")
	c.do("DATA", "354")
}

// TestInjection: plain text sent along with STARTTLS is never run.
func TestInjection(t *testing.T) {
	for _, extra := range []string{"MAIL FROM:<evil@b.example>\r\n", "x", "\r\n", "EHLO evil\r\nAUTH PLAIN AGEAYg==\r\n"} {
		r := start(t, withTLS(config.TLSStart))
		c := r.hello()
		c.write("STARTTLS\r\n" + extra)
		c.expect("554 5.5.1")
		c.gone()
	}
}

// TestSNI: the certificate follows the name, and a changed one is served on the
// next handshake; what the server knows already is not sent again.
func TestSNI(t *testing.T) {
	r := start(t, withTLS(config.TLSStart))
	ca := authority(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	first, second := issue(t, ca, selfca.ECDSA, "a.example"), issue(t, ca, selfca.ECDSA, "a.example")
	serve := func(cert tls.Certificate) {
		r.lookup.mu.Lock()
		defer r.lookup.mu.Unlock()
		r.lookup.certs["a.example"] = cert
	}
	shake := func() [32]byte {
		c := r.hello()
		c.do("STARTTLS", "220")
		state := c.startTLS(&tls.Config{RootCAs: roots, ServerName: "a.example"})
		c.do("QUIT", "221")
		return sha256.Sum256(state.PeerCertificates[0].Raw)
	}
	for i, cert := range []tls.Certificate{first, first, second, second, first} {
		serve(cert)
		if got := shake(); got != sha256.Sum256(cert.Certificate[0]) {
			t.Errorf("handshake %d: another certificate", i)
		}
	}
	var known []bool
	for _, q := range r.lookup.asked {
		known = append(known, q.Have != [32]byte{})
		if len(q.Schemes) == 0 {
			t.Error("no signature schemes were passed on")
		}
	}
	if len(known) != 5 || known[0] || !known[1] {
		t.Errorf("fingerprints offered: %v", known)
	}
}

// TestForgottenChain: the cache may lose a chain between question and answer.
func TestForgottenChain(t *testing.T) {
	r := start(t, withTLS(config.TLSStart))
	r.secure().do("QUIT", "221")
	r.lookup.asking = func() {
		r.srv.certs.mu.Lock()
		defer r.srv.certs.mu.Unlock()
		clear(r.srv.certs.chains)
	}
	r.secure().do("QUIT", "221")
	if n := len(r.lookup.asked); n != 3 {
		t.Errorf("%d questions, want 3", n)
	}
}

// TestCertCacheBound: what names clients invent costs bounded memory.
func TestCertCacheBound(t *testing.T) {
	cert := issue(t, authority(t), selfca.ECDSA, "mx.example.org")
	var c certCache
	for i := range 3 * maxCerts {
		answer := lookup.Certificate{Chain: cert.Certificate, Fingerprint: [32]byte{byte(i), byte(i >> 8)}}
		for _, name := range []string{"a", strings.Repeat("b", i)} {
			if _, err := c.chain(certKey{0, name}, answer); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.names) > maxCerts || len(c.chains) > maxCerts {
			t.Fatalf("%d names, %d chains", len(c.names), len(c.chains))
		}
	}
}

func TestNoCertificate(t *testing.T) {
	r := start(t, withTLS(config.TLSStart))
	c := r.hello()
	c.do("STARTTLS", "220")
	tc := tls.Client(c.conn, &tls.Config{ServerName: "nobody.example", InsecureSkipVerify: true})
	if err := tc.Handshake(); err == nil {
		t.Fatal("the handshake succeeded")
	}
	c.gone()
	r.await(`no certificate for \"nobody.example\"`)
}

// await waits for a log line.
func (r *rig) await(text string) {
	r.t.Helper()
	for end := time.Now().Add(testPatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if strings.Contains(r.log.String(), text) {
			return
		}
	}
	r.t.Fatalf("the log lacks %q:\n%s", text, r.log.String())
}

// TestStalledHandshake: a client that stops in the middle of its handshake holds
// up nobody (CVE-2013-2125), and not for ever.
func TestStalledHandshake(t *testing.T) {
	r := start(t, withTLS(config.TLSStart), onConfig(func(c *Config) { c.Timeouts.Handshake = 50 * time.Millisecond }))
	stalled := r.hello()
	stalled.do("STARTTLS", "220")
	stalled.write("\x16\x03\x01\x02\x00\x01\x00")
	other := r.hello()
	other.envelope()
	if _, err := stalled.r.ReadByte(); err == nil {
		t.Error("the stalled handshake was answered")
	}
	r.await("reason=\"tls: ")
}

func TestGarbageHandshake(t *testing.T) {
	r := start(t, withTLS(config.TLSImplicit))
	c := r.dial()
	c.write("EHLO x\r\nMAIL FROM:<a@b.example>\r\n")
	if s, err := c.tryReply(); err == nil && strings.HasPrefix(s, "2") {
		t.Errorf("plain text was answered with %q", s)
	}
	r.await("reason=\"tls: ")
}

// TestClientCertificates: lookup judges, and the verdict is what Received says.
func TestClientCertificates(t *testing.T) {
	tests := []struct {
		verify  config.Verify
		verdict lookup.Verdict
		send    bool
		mail    string
		trace   string
	}{
		{config.VerifyOptional, lookup.Verdict{State: lookup.Verified, Identity: "client"}, true, "250", ":verified)"},
		{config.VerifyOptional, lookup.Verdict{State: lookup.Failed, Reason: "expired"}, true, "250", ":failed)"},
		{config.VerifyOptional, lookup.Verdict{State: lookup.Verified}, false, "250", ":unchecked)"},
		{config.VerifyNone, lookup.Verdict{State: lookup.Verified}, true, "250", ":unchecked)"},
		{config.VerifyRequire, lookup.Verdict{State: lookup.Verified}, true, "250", ":verified)"},
		{config.VerifyRequire, lookup.Verdict{State: lookup.Failed, Reason: "expired"}, true, "550 5.7.1 Client certificate failed expired", ""},
		{config.VerifyRequire, lookup.Verdict{State: lookup.Verified}, false, "550 5.7.1 Client certificate unchecked", ""},
	}
	for _, tt := range tests {
		r := start(t, withTLS(config.TLSRequire), onListener(func(l *Listener) { l.Verify = tt.verify }),
			onLookup(func(f *fakeLookup) { f.verdict = tt.verdict }))
		cfg := &tls.Config{RootCAs: r.roots, ServerName: "mx.example.org"}
		if tt.send {
			cfg.Certificates = []tls.Certificate{issue(t, authority(t), selfca.ECDSA, "client")}
		}
		c := r.hello()
		c.do("STARTTLS", "220")
		c.startTLS(cfg)
		c.do("EHLO x", "250")
		c.do("MAIL FROM:<a@b.example>", tt.mail)
		if tt.trace == "" {
			continue
		}
		c.do("RCPT TO:<a@b.example>", "250")
		c.do("DATA", "354")
		c.do("x\r\n.", "250")
		if got := r.only().body; !strings.Contains(got, tt.trace) {
			t.Errorf("%+v: trace %q", tt, got)
		}
	}
}

// TestTLSReplyIsOneRecord: a group of replies is one write, under TLS too.
func TestGroupedReplies(t *testing.T) {
	r := start(t)
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{t: t}
	c.use(conn)
	c.expect("220")
	c.write("EHLO x\r\nNOOP\r\nNOOP\r\n")
	c.r = bufio.NewReaderSize(conn, 4096)
	c.expect("250")
	if n := c.r.Buffered(); n != 2*len("250 2.0.0 Ok\r\n") {
		t.Errorf("%d bytes came along, want the other two replies", n)
	}
}

// TestOldTLS: RFC 8996.
func TestOldTLS(t *testing.T) {
	r := start(t, withTLS(config.TLSImplicit))
	c := r.dial()
	tc := tls.Client(c.conn, &tls.Config{RootCAs: r.roots, ServerName: "mx.example.org", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err := tc.Handshake(); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// TestNoResumption: each handshake chooses the certificate anew.
func TestNoResumption(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r := start(t, withTLS(config.TLSStart))
		cfg := &tls.Config{
			RootCAs: r.roots, ServerName: "mx.example.org", MaxVersion: version,
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		for range 2 {
			c := r.hello()
			c.do("STARTTLS", "220")
			if c.startTLS(cfg); c.conn.(*tls.Conn).ConnectionState().DidResume {
				t.Errorf("%s was resumed", tls.VersionName(version))
			}
			c.do("EHLO x", "250") // reads the tickets that would come
			c.do("QUIT", "221")
		}
	}
}
