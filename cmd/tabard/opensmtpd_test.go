package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/osmtpdtest"
	"tabard/internal/selfca"
)

// What the OpenSMTPD of Debian 12 (6.8) cannot do, and these tests cannot ask of
// it: as a client it names no server (SNI), and tells nothing of the peer's
// certificate but whether it was in order; as a server it says YES or NO in
// Received, and has no table that makes a user of a certificate. A listener with
// "verify" makes others with the same pki ask for certificates from then on: so it
// has a pki of its own here. Its TLS works at all only with the shim of
// internal/osmtpdtest.

// peerOptions are those of an OpenSMTPD with a certificate of its own authority,
// which the server comes to trust ("mx"), and with the server's authority.
func (s *server) peerOptions() osmtpdtest.Options {
	s.t.Helper()
	now := time.Now()
	ca, err := selfca.New("OpenSMTPD's authority", now.Add(-time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	chain, key, err := ca.Issue(selfca.Request{Names: []string{"localhost", "opensmtpd.example"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		s.t.Fatal(err)
	}
	trusted, err := os.ReadFile(filepath.Join(s.dir, "ca.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.exec(`UPDATE authorities SET pem = pem || ? WHERE name = 'localhost'`, string(ca.PEM()))
	return osmtpdtest.Options{
		Hosts: []string{"other.example"},
		CA:    trusted,
		Files: map[string][]byte{
			"chain.pem": chain, "key.pem": key, "ca.pem": trusted,
			"secrets": []byte("in " + s.user + ":" + s.password + "\nwrong " + s.user + ":guess\n"),
		},
		Lines: []string{
			fmt.Sprintf(`pki "mx" cert "%schain.pem"`, osmtpdtest.FilesDir),
			fmt.Sprintf(`pki "mx" key "%skey.pem"`, osmtpdtest.FilesDir),
			fmt.Sprintf(`pki "other" cert "%schain.pem"`, osmtpdtest.FilesDir),
			fmt.Sprintf(`pki "other" key "%skey.pem"`, osmtpdtest.FilesDir),
			fmt.Sprintf(`ca "tabard" cert "%sca.pem"`, osmtpdtest.FilesDir),
			fmt.Sprintf(`table "secrets" "file:%ssecrets"`, osmtpdtest.FilesDir),
		},
	}
}

// relayFrom adds a rule: what name@opensmtpd.example sends, who may do so on the
// server as its user, is relayed in this way.
func (s *server) relayFrom(opt *osmtpdtest.Options, name, relay string) {
	s.t.Helper()
	sender := name + "@opensmtpd.example"
	s.exec(`INSERT INTO senders ("user", address) VALUES (?, ?)`, s.user, sender)
	opt.Lines = append(opt.Lines, fmt.Sprintf(`action %q relay %s`, name, relay), fmt.Sprintf(`match mail-from %q for any action %q`, sender, name))
}

// relayed hands a message to an OpenSMTPD, which relays it to the server's user.
func (s *server) relayed(o *osmtpdtest.Server, name string) {
	s.t.Helper()
	if err := o.Sendmail(s.t.Context(), name+"@opensmtpd.example", []string{s.user}, "Subject: "+name+"\n\n.\nbody\n"); err != nil {
		s.t.Fatal(err)
	}
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// withSubject finds the message with a subject.
func withSubject(messages []string, subject string) string {
	for _, text := range messages {
		if strings.Contains(text, "\nSubject: "+subject+"\n") {
			return text
		}
	}
	return ""
}

// TestReceiveFromOpenSMTPD lets a real OpenSMTPD deliver by each of its schemes to
// each kind of listener, over TLS that it verifies where it does: as anybody, with
// a password, and with a certificate in place of one.
func TestReceiveFromOpenSMTPD(t *testing.T) {
	s := startQuickstart(t)
	s.edit(func(text string) string {
		text = strings.Replace(text, " tls\n", " tls verify optional cert-auth <mail> received-auth\n", 1)
		return strings.ReplaceAll(text, " senders <mail>\n", " senders <mail> received-auth\n")
	})
	s.exec(`INSERT INTO client_identities (identity, "user") VALUES ('dns:opensmtpd.example', ?)`, s.user)
	smtp, smtps, submit := portOf(t, s.smtp), portOf(t, s.smtps), portOf(t, s.submit)
	auth := "(auth=yes user=" + s.user + ")"
	cases := []struct {
		name, relay, with, verdict, auth string
	}{
		{"plain", `host "smtp+notls://localhost:` + smtp + `"`, "ESMTP", "", ""},
		{"opportunistic", `host "smtp://localhost:` + smtp + `"`, "ESMTPS", "unchecked", ""},
		{"anybody", `host "smtp+tls://localhost:` + smtp + `"`, "ESMTPS", "unchecked", ""},
		{"certificate", `host "smtp+tls://localhost:` + smtp + `" pki "mx"`, "ESMTPSA", "verified", auth},
		{"password", `host "smtp+tls://in@localhost:` + submit + `" auth <secrets>`, "ESMTPSA", "unchecked", auth},
		{"on-connect", `host "smtps://in@localhost:` + smtps + `" auth <secrets>`, "ESMTPSA", "unchecked", auth},
	}
	for i, c := range cases {
		// One for each: its pace is a delivery every few seconds to one host.
		t.Run(c.name, func(t *testing.T) {
			opt := s.peerOptions()
			s.relayFrom(&opt, c.name, c.relay)
			o := osmtpdtest.Begin(t, opt)
			s.relayed(o, c.name)
			eventually(t, "the message is in the Maildir", func() bool { return len(s.maildir(s.user)) == i+1 })
			text := withSubject(s.maildir(s.user), c.name)
			for _, want := range []string{
				"Received: from opensmtpd.example (localhost [127.0.0.1])\n\tby localhost (Tabard) with " + c.with + " id ",
				"Received: from localhost (opensmtpd.example [local])\n\tby opensmtpd.example (OpenSMTPD) with ", "\n\n.\nbody\n",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("the message lacks %q:\n%s", want, text)
				}
			}
			if c.verdict != "" != strings.Contains(text, "_SHA256:"+c.verdict) {
				t.Errorf("want a certificate that is %q:\n%s", c.verdict, text)
			}
			if strings.Contains(text, auth) != (c.auth != "") {
				t.Errorf("want authentication %q:\n%s", c.auth, text)
			}
			if verified := strings.Contains(o.Log(), `mta server-cert-check result="success"`); verified != (c.verdict != "") {
				t.Errorf("OpenSMTPD verified us: %t", verified)
			}
		})
	}
	s.log.await(t, `smtp authentication user=`+s.user+` method=certificate identity=dns:opensmtpd.example result=ok`)
}

// TestOpenSMTPDRefuses shows that the deliveries above could have failed: with a
// wrong name, an authority that OpenSMTPD does not know, or a wrong password it
// keeps its mail.
func TestOpenSMTPDRefuses(t *testing.T) {
	s := startQuickstart(t)
	smtp, smtps := portOf(t, s.smtp), portOf(t, s.smtps)
	for _, c := range []struct{ name, relay, log string }{
		{"othername", `host "smtp+tls://other.example:` + smtp + `"`, "no match for 'other.example' in cert"},
		{"stranger", `host "smtp+tls://localhost:` + smtp + `"`, "reason=SSL certificate check failed"},
		{"guess", `host "smtps://wrong@localhost:` + smtps + `" auth <secrets>`, "AUTH rejected: 535 5.7.8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt := s.peerOptions()
			if c.name == "stranger" {
				opt.CA = opt.Files["chain.pem"]
			}
			s.relayFrom(&opt, c.name, c.relay)
			o := osmtpdtest.Begin(t, opt)
			s.relayed(o, c.name)
			eventually(t, "OpenSMTPD's log has: "+c.log, func() bool { return strings.Contains(o.Log(), c.log) })
		})
	}
	if got := s.maildir(s.user); len(got) != 0 {
		t.Errorf("delivered: %q", got)
	}
}

// TestRelayToOpenSMTPD sends mail by each scheme to each kind of listener of a real
// OpenSMTPD: in clear, over verified TLS, with a password, and to one that demands
// a certificate.
func TestRelayToOpenSMTPD(t *testing.T) {
	s := startQuickstart(t)
	s.edit(func(text string) string {
		return strings.Replace(text, "relay domain <mail> auth <mail>\n", "relay domain <mail> auth <mail> pki <mail>\n", 1)
	})
	hash, err := exec.CommandContext(t.Context(), "openssl", "passwd", "-6", "s3cret").Output()
	if err != nil {
		t.Fatal(err)
	}
	opt := s.peerOptions()
	opt.Files["users"] = []byte("robot " + string(hash))
	opt.Lines = append(opt.Lines, fmt.Sprintf(`table "users" "file:%susers"`, osmtpdtest.FilesDir))
	opt.Listeners = []string{
		`tls pki "mx"`, `smtps pki "mx" auth <users> received-auth`,
		`tls-require pki "mx" auth <users> received-auth`, `tls-require verify pki "other" ca "tabard"`, "",
	}
	opt.Domains = []string{"starttls.example", "smtps.example", "password.example", "verify.example",
		"clear.example", "fallback.example", "opportunistic.example", "ssl.example", "guess.example", "othername.example", "notls.example"}
	o := osmtpdtest.Begin(t, opt)
	s.exec(`INSERT INTO relay_credentials (label, username, password) VALUES ('good', 'robot', 's3cret'), ('bad', 'robot', 'guess')`)
	// YES only where the listener has "verify".
	cases := []struct{ domain, url, received string }{
		{"starttls.example", "tls://localhost:" + portOf(t, o.Addrs[0]), "with ESMTPS id * (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO)\n"},
		{"smtps.example", "smtps://good@localhost:" + portOf(t, o.Addrs[1]), "with ESMTPSA id * (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO) auth=yes user=robot\n"},
		{"password.example", "tls://good@localhost:" + portOf(t, o.Addrs[2]), "with ESMTPSA id * (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO) auth=yes user=robot\n"},
		{"verify.example", "tls://localhost:" + portOf(t, o.Addrs[3]), "with ESMTPS id * (TLSv1.3:TLS_AES_256_GCM_SHA384:256:YES)\n"},
		{"clear.example", "smtp://localhost:" + portOf(t, o.Addrs[0]), "with ESMTP id *\n"},
		{"fallback.example", "smtp+tls://localhost:" + portOf(t, o.Addrs[4]), "with ESMTP id *\n"},
		{"opportunistic.example", "smtp+tls://localhost:" + portOf(t, o.Addrs[0]), "with ESMTPS id * (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO)\n"},
		{"ssl.example", "ssl://localhost:" + portOf(t, o.Addrs[0]), "with ESMTPS id * (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO)\n"},
	}
	for _, c := range cases {
		s.exec(`INSERT INTO relays (match, url) VALUES (?, ?)`, c.domain, c.url)
	}
	// These wait.
	s.exec(`INSERT INTO relays (match, url) VALUES ('guess.example', ?), ('othername.example', ?), ('notls.example', ?)`,
		"tls://bad@localhost:"+portOf(t, o.Addrs[2]), "tls://127.0.0.1:"+portOf(t, o.Addrs[0]), "tls://localhost:"+portOf(t, o.Addrs[4]))
	d := dialSMTP(t, s.submit)
	d.startTLS(s.trust("localhost"))
	d.send("EHLO client.example", "250")
	d.send("AUTH PLAIN "+plain(s.user, s.password), "235")
	for _, domain := range opt.Domains {
		d.sendMail(s.user, "x@"+domain, "Subject: "+domain+"\n\n..a line with a dot\nend")
	}
	s.log.await(t, `to=<x@guess\.example>.*result="?TempFail`)
	s.log.await(t, `to=<x@othername\.example>.*result="?TempFail`)
	s.log.await(t, `to=<x@notls\.example>.*result="?TempFail`)
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	got, err := o.Await(ctx, len(cases))
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	if len(got) != len(cases) {
		t.Errorf("%d messages arrived; want %d", len(got), len(cases))
	}
	for _, c := range cases {
		text := withSubject(got, c.domain)
		before, after, _ := strings.Cut(c.received, "*")
		for _, want := range []string{
			"Received: from localhost (localhost [127.0.0.1])\n\tby opensmtpd.example (OpenSMTPD) " + before, after,
			"Received: from client.example (localhost [127.0.0.1])\n\tby localhost (Tabard) with ESMTPSA id ", "_SHA256:unchecked)\n", "\n\n.a line with a dot\nend\n",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the message lacks %q:\n%s", c.domain, want, text)
			}
		}
		s.log.await(t, `to=<x@`+c.domain+`>.*result=Ok`)
	}
	if log := o.Log(); !strings.Contains(log, `smtp client-cert-check result="success"`) || !strings.Contains(log, "smtp authentication user=robot result=permfail") {
		t.Errorf("OpenSMTPD tells of no certificate or no wrong password:\n%s", log)
	}
	s.log.await(t, `mta cert-shown .*localhost`)
}
