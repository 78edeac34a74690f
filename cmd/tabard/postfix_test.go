package main

import (
	"context"
	"fmt"
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
// trusts it; it trusts the server's. more changes the options.
func (s *server) startPostfixPeer(more ...func(*posttest.Options)) *posttest.Server {
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
		CertFile: filepath.Join(dir, "chain.pem"), KeyFile: filepath.Join(dir, "key.pem"), CAFile: filepath.Join(s.dir, "ca.pem"),
		Main: []string{"smtpd_tls_received_header = yes"},
	}
	for _, f := range more {
		f(&opt)
	}
	p, err := posttest.Start(context.Background(), opt)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		lines, _ := p.NotUnderstood()
		for _, line := range lines {
			s.t.Errorf("log import: %s", line)
		}
		if err := p.Close(); err != nil {
			s.t.Error(err)
		}
	})
	s.exec(`INSERT OR REPLACE INTO authorities (name, pem) VALUES ('localhost', ?)`, string(ca.PEM()))
	return p
}

// submission logs in on the submission port.
func (s *server) submission() *dialogue {
	s.t.Helper()
	d := dialSMTP(s.t, s.submit)
	d.startTLS(s.trust("localhost"))
	d.send("EHLO client.example", "250")
	d.send("AUTH PLAIN "+plain(s.user, s.password), "235")
	return d
}

// toPostfix is mail to a domain that a real Postfix keeps, how the server sends
// it there, and the Received line that Postfix writes of that.
type toPostfix struct{ domain, url, received string }

// TestRelayToPostfix sends mail through Tabard to a real Postfix by every scheme,
// with a password and with a certificate, and finds the right Received lines of
// both.
func TestRelayToPostfix(t *testing.T) {
	s := startQuickstart(t)
	s.edit(func(text string) string {
		return strings.Replace(text, "relay domain <mail> auth <mail>\n", "relay domain <mail> auth <mail> pki <mail>\n", 1)
	})
	p := s.startPostfixPeer(func(o *posttest.Options) {
		o.Users = map[string]string{"robot": "s3cret"}
		o.Main = append(o.Main, "smtpd_tls_ask_ccert = yes", "smtpd_delay_reject = yes")
		o.Listeners = []string{
			"-o smtpd_tls_security_level=none",
			"-o smtpd_tls_wrappermode=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject",
			"-o smtpd_client_restrictions=permit_sasl_authenticated,reject",
			"-o smtpd_tls_req_ccert=yes",
		}
		o.Domains = []string{"postfix.example", "clear.example", "fallback.example", "opportunistic.example", "ssl.example", "smtps.example",
			"password.example", "certificate.example", "noverify.example", "guess.example", "notls.example", "othername.example"}
	})
	var port []string
	for _, addr := range p.Addrs {
		port = append(port, portOf(t, addr))
	}
	tls, robot := "(using TLSv1.3 with cipher ", "(Authenticated sender: robot)"
	cases := []toPostfix{
		{"clear.example", "smtp://localhost:" + port[1], "with ESMTP id "},
		{"fallback.example", "smtp+tls://localhost:" + port[1], "with ESMTP id "},
		{"opportunistic.example", "smtp+tls://localhost:" + port[0], tls},
		{"postfix.example", "tls://localhost:" + port[0], tls},
		{"ssl.example", "ssl://localhost:" + port[0], tls},
		{"smtps.example", "smtps://good@localhost:" + port[2], robot},
		{"password.example", "tls://good@localhost:" + port[3], robot},
		{"certificate.example", "tls://localhost:" + port[4], `(Client CN "localhost", Issuer `},
	}
	waits := []toPostfix{
		{"guess.example", "smtps://bad@localhost:" + port[2], "535 5.7.8"},
		{"notls.example", "tls://localhost:" + port[1], "does not offer STARTTLS"},
		{"othername.example", "tls://127.0.0.1:" + port[0], "not verified"}, // there is no authority for the name
	}
	s.exec(`INSERT INTO relay_credentials (label, username, password) VALUES ('good', 'robot', 's3cret'), ('bad', 'robot', 'guess')`)
	d := s.submission()
	for _, c := range append(waits, cases...) {
		s.exec(`INSERT INTO relays (match, url) VALUES (?, ?)`, c.domain, c.url)
		d.sendMail(s.user, "x@"+c.domain, "Subject: "+c.domain+"\n\n..a line with a dot\n"+strings.Repeat("x", 900)+"\nend")
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitLong)
	defer cancel()
	got, err := p.Await(ctx, len(cases))
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, s.log, p.Log())
	}
	for _, c := range cases {
		text := withSubject(got, c.domain)
		for _, want := range []string{
			c.received, "by postfix.example (Postfix) with ESMTP", "\tby localhost (Tabard) with ESMTPSA id ", ":unchecked)",
			"\n.a line with a dot\n" + strings.Repeat("x", 900) + "\nend\n",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: Postfix' copy lacks %q:\n%s", c.domain, want, text)
			}
		}
		if encrypted := strings.Contains(text, tls); encrypted == strings.HasSuffix(c.url, port[1]) {
			t.Errorf("%s: encrypted: %t:\n%s", c.domain, encrypted, text)
		}
	}
	s.log.await(t, `mta .*verified`)
	s.keepWaiting(p, waits, len(cases))
}

// keepWaiting wants mail to stay in the queue, and empties it.
func (s *server) keepWaiting(p *posttest.Server, waits []toPostfix, arrived int) {
	t := s.t
	t.Helper()
	for _, c := range waits {
		s.log.await(t, `to=<x@`+c.domain+`>.*result="?TempFail.*`+c.received)
	}
	if got, err := p.Messages(); err != nil || len(got) != arrived {
		t.Errorf("Postfix has %d messages, %v; want %d", len(got), err, arrived)
	}
	out := tabard(t, "queue", "ls", "-c", s.config)
	for _, c := range waits {
		if !strings.Contains(out, "<x@"+c.domain+">") {
			t.Errorf("the message to %s does not wait in the queue:\n%s", c.domain, out)
		}
	}
	s.pauseAndHold(waits[0].domain)
	all := fmt.Sprintf("%d envelopes ", len(waits))
	if out := tabard(t, "queue", "retry", "all", "-c", s.config); out != all+"made due\n" {
		t.Errorf("queue retry all: %s", out)
	}
	if out := tabard(t, "queue", "rm", "all", "-c", s.config); out != all+"removed\n" {
		t.Errorf("queue rm all: %s", out)
	}
	if out := tabard(t, "queue", "ls", "--json", "-c", s.config); out != "[]\n" {
		t.Errorf("the queue is not empty: %s", out)
	}
}

// pauseAndHold steers mail that waits for a domain from the command line.
func (s *server) pauseAndHold(domain string) {
	s.t.Helper()
	for _, step := range []struct {
		args []string
		want []string
	}{
		{[]string{"route", "ls"}, []string{"DESTINATION", domain, " 1 "}},
		{[]string{"route", "pause", domain, "--reason", "ticket 4711"}, []string{"route " + domain + " paused: ticket 4711"}},
		{[]string{"route", "ls", "--json"}, []string{`"state": "paused"`, `"waiting": 1`, `"servers": "127.0.0.1:`}},
		{[]string{"queue", "ls"}, []string{"held", "ticket 4711"}},
		{[]string{"route", "resume", domain}, []string{"route " + domain + ": "}},
		{[]string{"queue", "hold", "--destination", domain}, []string{"destination " + domain + " held"}},
		{[]string{"queue", "hold"}, []string{"destination", domain}},
		{[]string{"queue", "release", "--destination", domain}, []string{"envelopes due"}},
	} {
		out := tabard(s.t, append(step.args, "-c", s.config)...)
		for _, want := range step.want {
			if !strings.Contains(out, want) {
				s.t.Errorf("%q prints no %q:\n%s", step.args, want, out)
			}
		}
	}
}

// TestReceiveFromPostfix lets a real Postfix deliver to each kind of listener: in
// clear, over TLS that it verifies, pipelining as it likes, and with a password.
func TestReceiveFromPostfix(t *testing.T) {
	s := startQuickstart(t)
	s.edit(func(text string) string {
		return strings.ReplaceAll(text, " senders <mail>\n", " senders <mail> received-auth\n")
	})
	smtp, smtps, submit := portOf(t, s.smtp), portOf(t, s.smtps), portOf(t, s.submit)
	auth := "(auth=yes user=" + s.user + ")"
	cases := []struct{ name, to, options, with, auth string }{
		{"clear", smtp, "-o smtp_tls_security_level=none", "ESMTP", ""},
		{"tls", smtp, "", "ESMTPS", ""},
		{"wrapped", smtps, "-o smtp_tls_wrappermode=yes -o smtp_sasl_auth_enable=yes", "ESMTPSA", auth},
		{"password", submit, "-o smtp_sasl_auth_enable=yes", "ESMTPSA", auth},
	}
	p := s.startPostfixPeer(func(o *posttest.Options) {
		o.Relayhost, o.ClientTLS = "[localhost]:"+smtp, "verify"
		var transports, passwords []string
		for _, c := range cases {
			from := c.name + "@postfix.example"
			o.Master = append(o.Master, c.name+" unix - - n - - smtp "+c.options)
			transports = append(transports, fmt.Sprintf("{ %s = %s:[localhost]:%s }", from, c.name, c.to))
			passwords = append(passwords, fmt.Sprintf("{ [localhost]:%s = %s:%s }", c.to, s.user, s.password))
			s.exec(`INSERT INTO senders ("user", address) VALUES (?, ?)`, s.user, from)
		}
		o.Main = append(o.Main, "smtp_tls_verify_cert_match = hostname, dot-nexthop",
			"smtp_sasl_security_options = noanonymous", "smtp_sasl_password_maps = inline:{ "+strings.Join(passwords[2:], ", ")+" }",
			"sender_dependent_default_transport_maps = inline:{ "+strings.Join(transports, ", ")+" }")
	})
	const each = 3
	for _, c := range cases {
		for i := range each {
			text := fmt.Sprintf("Subject: %s %d\n\n.\nbody\n", c.name, i)
			if err := p.Sendmail(context.Background(), c.name+"@postfix.example", []string{s.user}, text); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "the messages are in the Maildir", func() bool { return len(s.maildir(s.user)) == each*len(cases) })
	for _, c := range cases {
		for i := range each {
			text := withSubject(s.maildir(s.user), fmt.Sprint(c.name, " ", i))
			want := "Received: from postfix.example (localhost [127.0.0.1])\n\tby localhost (Tabard) with " + c.with + " id "
			if !strings.Contains(text, want) || !strings.Contains(text, "\n.\nbody\n") || strings.Contains(text, auth) != (c.auth != "") {
				t.Errorf("%s: want %q and authentication %q:\n%s", c.name, want, c.auth, text)
			}
		}
	}
	if log := p.Log(); strings.Count(log, "Verified TLS connection established to localhost") < len(cases)-1 {
		t.Errorf("Postfix did not verify us:\n%s", log)
	}
}

// TestBounce relays to a Postfix that refuses the recipient, and finds the
// report in the sender's Maildir.
func TestBounce(t *testing.T) {
	s := startQuickstart(t)
	p := s.startPostfixPeer()
	tabard(t, "relay", "add", "elsewhere.example", "tls://localhost:"+portOf(t, p.Addr), "-c", s.config)
	d := s.submission()
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
