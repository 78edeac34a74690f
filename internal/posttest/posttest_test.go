package posttest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// startOrRefuse starts a Postfix. Without root it checks that this is refused,
// and says that there is nothing else to test.
func startOrRefuse(t *testing.T, opt Options) (*Server, bool) {
	t.Helper()
	s, err := Start(t.Context(), opt)
	if os.Geteuid() != 0 {
		if !errors.Is(err, ErrNotRoot) {
			t.Errorf("without root: %v", err)
		}
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		lines, _ := s.NotUnderstood()
		for _, line := range lines {
			t.Errorf("log import: %s", line)
		}
		if t.Failed() {
			t.Log(s.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, true
}

// certificate makes a certificate authority and a certificate of 127.0.0.1.
func certificate(t *testing.T) (opt Options, roots *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	ca := template(1, "test CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := template(2, "mx.postfix.example")
	leaf.DNSNames, leaf.IPAddresses = []string{"mx.postfix.example"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	caKey, caDER := sign(t, ca, nil, nil)
	parent, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	key, der := sign(t, leaf, parent, caKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots = x509.NewCertPool()
	roots.AddCert(parent)
	return Options{
		CertFile: write("cert.pem", "CERTIFICATE", der), KeyFile: write("key.pem", "PRIVATE KEY", keyDER),
		CAFile: write("ca.pem", "CERTIFICATE", caDER),
	}, roots
}

func sign(t *testing.T, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

const message = "From: a@a.example\r\nTo: bob@b.example\r\nSubject: over TLS\r\n" +
	"Date: Mon, 2 Jan 2006 15:04:05 +0000\r\nMessage-Id: <1@a.example>\r\n\r\nhello\r\n.dot\r\n"

func TestReceivesOverTLS(t *testing.T) {
	opt, roots := certificate(t)
	opt.Hostname, opt.Domains, opt.TLS = "mx.postfix.example", []string{"b.example"}, "encrypt"
	s, ok := startOrRefuse(t, opt)
	if !ok {
		return
	}
	// In clear it takes nothing.
	if err := smtpSend(s.Addr, nil); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("in clear: %v", err)
	}
	// The certificate is the given one, and not another.
	if err := smtpSend(s.Addr, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "mx.postfix.example"}); err == nil {
		t.Error("no root trusted, and yet verified")
	}
	if err := smtpSend(s.Addr, &tls.Config{RootCAs: roots, ServerName: "mx.postfix.example"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Await(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(message, "\r\n", "\n")
	if len(got) != 1 || !strings.HasSuffix(got[0], want) || !strings.Contains(got[0], "with ESMTPS") {
		t.Errorf("got %q", got)
	}
	for _, field := range []string{"Return-Path: <a@a.example>\n", "Delivered-To: bob@b.example\n", "by mx.postfix.example (Postfix)"} {
		if !strings.Contains(got[0], field) {
			t.Errorf("no %q in %q", field, got[0])
		}
	}
	// A session, a message, an envelope, an attempt and a result at least.
	if lines, events := s.NotUnderstood(); len(lines) > 0 || events < 5 {
		t.Errorf("log import makes %d events and does not understand %q", events, lines)
	}
	if !strings.Contains(s.Log(), "status=sent (delivered to maildir)") {
		t.Error("the log does not tell of the delivery")
	}
}

// smtpSend sends the message, with STARTTLS when there is a configuration for it.
func smtpSend(addr string, config *tls.Config) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	var c *smtp.Client
	if config == nil {
		c = smtp.NewClient(conn)
	} else if c, err = smtp.NewClientStartTLS(conn, config); err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return c.SendMail("a@a.example", []string{"bob@b.example"}, strings.NewReader(message))
}

// sink is an SMTP server that keeps the last message.
type sink struct {
	mu       sync.Mutex
	from, to string
	body     string
	tls      bool
	got      chan struct{}
}

// NewSession implements smtp.Backend.
func (k *sink) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &sinkSession{sink: k, conn: c}, nil
}

type sinkSession struct {
	*sink
	conn *smtp.Conn
}

func (s *sinkSession) Reset()                                      {}
func (s *sinkSession) Logout() error                               { return nil }
func (s *sinkSession) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }
func (s *sinkSession) Rcpt(to string, _ *smtp.RcptOptions) error   { s.to = to; return nil }
func (s *sinkSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.mu.Lock()
	s.body = string(b)
	_, s.tls = s.conn.TLSConnectionState()
	s.mu.Unlock()
	close(s.got)
	return err
}

func TestSendsToRelayhost(t *testing.T) {
	opt, _ := certificate(t)
	pair, err := tls.LoadX509KeyPair(opt.CertFile, opt.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &sink{got: make(chan struct{})}
	srv := smtp.NewServer(k)
	srv.Domain, srv.TLSConfig = "sink.example", &tls.Config{Certificates: []tls.Certificate{pair}}
	go func() { _ = srv.Serve(ln) }()
	defer func() { _ = srv.Close() }()

	host, port, _ := net.SplitHostPort(ln.Addr().String())
	s, ok := startOrRefuse(t, Options{
		Relayhost: "[" + host + "]:" + port, ClientTLS: "verify", CAFile: opt.CAFile,
		Main: []string{"smtp_tls_verify_cert_match = mx.postfix.example"},
	})
	if !ok {
		return
	}
	if err := s.Sendmail(t.Context(), "a@a.example", []string{"c@elsewhere.example"}, "Subject: out\n\nbye\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.got:
	case <-t.Context().Done():
		t.Fatal("nothing came")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.from != "a@a.example" || k.to != "c@elsewhere.example" || !k.tls || !strings.HasSuffix(k.body, "\r\n\r\nbye\r\n") {
		t.Errorf("from %q to %q tls %v body %q", k.from, k.to, k.tls, k.body)
	}
}

func TestDiscards(t *testing.T) {
	s, ok := startOrRefuse(t, Options{Domains: []string{"b.example"}, Discard: true})
	if !ok {
		return
	}
	if err := smtpSend(s.Addr, nil); err != nil {
		t.Fatal(err)
	}
	if err := awaitLog(t.Context(), s, "relay=none, delay="); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Messages(); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
	if out, err := s.Command(t.Context(), nil, "postqueue", "-p"); err != nil || !strings.Contains(out, "queue is empty") {
		t.Errorf("postqueue: %q, %v", out, err)
	}
}

func awaitLog(ctx context.Context, s *Server, text string) error {
	for !strings.Contains(s.Log(), text) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// Nothing is left after Close: no process, no file.
func TestCloseLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	if err := os.Chmod(filepath.Dir(parent), 0o755); err != nil {
		t.Fatal(err)
	}
	s, ok := startOrRefuse(t, Options{Dir: parent, Domains: []string{"b.example"}})
	if !ok {
		return
	}
	if err := smtpSend(s.Addr, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	group := s.Pid()
	if n := groupSize(t, group); n < 4 {
		t.Fatalf("%d processes; there should be several, or this test sees none", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := groupSize(t, group); n != 0 {
		t.Errorf("%d processes left", n)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if conn, err := net.Dial("tcp", s.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v %v", conn, err)
	}
}

// groupSize counts the live processes of a process group.
func groupSize(t *testing.T, group int) int {
	t.Helper()
	n := 0
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, _ := os.ReadFile(path) // it may have ended meanwhile
		// pid (name) state ppid pgrp: the name may hold blanks.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) > 2 && string(fields[2]) == strconv.Itoa(group) && string(fields[0]) != "Z" {
			n++
		}
	}
	return n
}

// A Postfix that cannot run says why.
func TestBadConfiguration(t *testing.T) {
	if os.Geteuid() != 0 {
		startOrRefuse(t, Options{})
		return
	}
	_, err := Start(t.Context(), Options{Main: []string{"mail_owner = root"}})
	if err == nil || !strings.Contains(err.Error(), "mail_owner") {
		t.Errorf("error %v", err)
	}
}
