package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/posttest"
	"tabard/internal/selfca"
)

// startPostfixPeer starts a real Postfix with a certificate of its own
// authority, and adds that authority to the server's table, so that the server
// trusts it. relayTo is where Postfix sends what it does not keep.
func (s *server) startPostfixPeer(relayTo string) *posttest.Server {
	s.t.Helper()
	dir := s.t.TempDir()
	now := time.Now()
	ca, err := selfca.New("Postfix' authority", now.Add(-time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	chain, key, err := ca.Issue(selfca.Request{Names: []string{"localhost", "127.0.0.1"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		s.t.Fatal(err)
	}
	for name, text := range map[string][]byte{"chain.pem": chain, "key.pem": key, "ca.pem": ca.PEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	opt := posttest.Options{
		Hostname: "postfix.example", Domains: []string{"postfix.example"}, TLS: "encrypt",
		CertFile: filepath.Join(dir, "chain.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		Main: []string{"smtpd_tls_received_header = yes"},
	}
	if relayTo != "" {
		opt.Relayhost, opt.ClientTLS, opt.CAFile = relayTo, "verify", filepath.Join(s.dir, "ca.pem")
		opt.Main = append(opt.Main, "smtp_tls_verify_cert_match = hostname, dot-nexthop")
	}
	p, err := posttest.Start(context.Background(), opt)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			s.t.Error(err)
		}
	})
	s.exec(`INSERT OR REPLACE INTO authorities (name, pem) VALUES ('localhost', ?)`, string(ca.PEM()))
	return p
}

// TestRelayToPostfix sends mail through Tabard to a real Postfix over verified
// TLS, and finds the right Received lines of both.
func TestRelayToPostfix(t *testing.T) {
	s := startQuickstart(t)
	p := s.startPostfixPeer("")
	_, port, _ := net.SplitHostPort(p.Addr)
	tabard(t, "relay", "add", "postfix.example", "tls://localhost:"+port, "-c", s.config)
	d := dialSMTP(t, s.submit)
	d.startTLS(s.trust("localhost"))
	d.send("EHLO client.example", "250")
	d.send("AUTH PLAIN "+plain(s.user, s.password), "235")
	d.sendMail(s.user, "someone@postfix.example", "Subject: to Postfix\n\n..a line with a dot\n"+strings.Repeat("x", 900)+"\nend")
	ctx, cancel := context.WithTimeout(context.Background(), waitLong)
	defer cancel()
	got, err := p.Await(ctx, 1)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, s.log, p.Log())
	}
	for _, want := range []string{
		"\n.a line with a dot\n" + strings.Repeat("x", 900) + "\nend\n",
		"(using TLSv1.3 with cipher",               // Postfix' Received line, about us
		"by postfix.example (Postfix) with ESMTPS", //
		"\tby localhost (Tabard) with ESMTPSA id ", // ours, about the client
		":unchecked)",
	} {
		if !strings.Contains(got[0], want) {
			t.Errorf("Postfix' copy lacks %q:\n%s", want, got[0])
		}
	}
	s.log.await(t, `mta .*verified`)

	// The same certificate without an authority for the name: the mail waits,
	// nothing goes in clear.
	tabard(t, "relay", "add", "other.example", "tls://127.0.0.1:"+port, "-c", s.config)
	d.sendMail(s.user, "other@other.example", "Subject: must wait\n\nbody")
	s.log.await(t, `to=<other@other\.example>.*result="?TempFail`)
	if got, err := p.Messages(); err != nil || len(got) != 1 {
		t.Errorf("Postfix has %d messages, %v; want the first one only", len(got), err)
	}
	if out := tabard(t, "queue", "ls", "-c", s.config); !strings.Contains(out, "<other@other.example>") {
		t.Errorf("the message does not wait in the queue:\n%s", out)
	}
	if out := tabard(t, "queue", "retry", "all", "-c", s.config); out != "1 envelopes made due\n" {
		t.Errorf("queue retry all: %s", out)
	}
	if out := tabard(t, "queue", "rm", "all", "-c", s.config); out != "1 envelopes removed\n" {
		t.Errorf("queue rm all: %s", out)
	}
	if out := tabard(t, "queue", "ls", "--json", "-c", s.config); out != "[]\n" {
		t.Errorf("the queue is not empty: %s", out)
	}
}

// TestReceiveFromPostfix lets a real Postfix deliver to Tabard over TLS that it
// verifies, pipelining as it likes.
func TestReceiveFromPostfix(t *testing.T) {
	s := startQuickstart(t)
	_, port, _ := net.SplitHostPort(s.smtp)
	p := s.startPostfixPeer("[localhost]:" + port)
	const n = 5
	for i := range n {
		text := fmt.Sprintf("Subject: from Postfix %d\n\n.\nbody\n", i)
		if err := p.Sendmail(context.Background(), "sender@postfix.example", []string{s.user}, text); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the messages are in the Maildir", func() bool { return len(s.maildir(s.user)) == n })
	for _, text := range s.maildir(s.user) {
		if !strings.Contains(text, "Received: from postfix.example (localhost [127.0.0.1])\n\tby localhost (Tabard) with ESMTPS id ") || !strings.Contains(text, "\n.\nbody\n") {
			t.Errorf("unexpected message:\n%s", text)
		}
	}
	if log := p.Log(); !strings.Contains(log, "Verified TLS connection established to localhost") {
		t.Errorf("Postfix did not verify us:\n%s", log)
	}
}

// TestBounce relays to a Postfix that refuses the recipient, and finds the
// report in the sender's Maildir.
func TestBounce(t *testing.T) {
	s := startQuickstart(t)
	p := s.startPostfixPeer("")
	_, port, _ := net.SplitHostPort(p.Addr)
	tabard(t, "relay", "add", "elsewhere.example", "tls://localhost:"+port, "-c", s.config)
	d := dialSMTP(t, s.submit)
	d.startTLS(s.trust("localhost"))
	d.send("EHLO client.example", "250")
	d.send("AUTH PLAIN "+plain(s.user, s.password), "235")
	d.sendMail(s.user, "nobody@elsewhere.example", "Subject: comes back\n\nbody")
	eventually(t, "the bounce arrives", func() bool { return len(s.maildir(s.user)) == 1 })
	text := s.maildir(s.user)[0]
	for _, want := range []string{
		"Return-Path: <>\n", "multipart/report", "message/delivery-status", "Final-Recipient: rfc822; nobody@elsewhere.example",
		"Action: failed", "Status: 5.", "Diagnostic-Code: smtp; 5", "Subject: comes back",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the bounce lacks %q:\n%s", want, text)
		}
	}
}
