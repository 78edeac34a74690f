package main

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/posttest"
	"tabard/internal/selfca"
)

// machine is a client certificate, in files.
type machine struct{ chain, key string }

// machines adds an authority for clients to the server's table, and issues a
// certificate.
func (s *server) machine(name string) machine {
	s.t.Helper()
	now := time.Now()
	ca, err := selfca.New("Machines", now.Add(-time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	chain, key, err := ca.Issue(selfca.Request{Names: []string{name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	m := machine{filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")}
	for path, text := range map[string][]byte{m.chain: chain, m.key: key} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	s.exec(`UPDATE authorities SET pem = pem || ? WHERE name = 'localhost'`, string(ca.PEM()))
	return m
}

// openssl says an SMTP dialogue with the certificate, and returns the replies.
func (m machine) openssl(t *testing.T, addr string, lines ...string) string {
	t.Helper()
	args := []string{"s_client", "-quiet", "-crlf", "-starttls", "smtp", "-connect", addr, "-cert", m.chain, "-key", m.key}
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = strings.NewReader(strings.Join(append(lines, "QUIT", ""), "\n"))
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "221 ") {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	return string(out)
}

// TestClientCertificateLogsIn logs in with openssl, without and with a password
// demanded, until the row is deleted. Received, log and session agree.
func TestClientCertificateLogsIn(t *testing.T) {
	s := startQuickstart(t)
	s.edit(func(text string) string {
		return strings.Replace(text, "tls-require auth <mail> senders <mail>", "tls-require auth <mail> senders <mail> cert-auth <mail> received-auth", 1)
	})
	m := s.machine("printer.example")
	mail := []string{"MAIL FROM:<" + s.user + ">", "RCPT TO:<" + s.user + ">", "DATA", "Subject: by certificate", "", "body", "."}
	external := append([]string{"EHLO printer.example", "AUTH EXTERNAL ="}, mail...)

	// Verified, but nobody's.
	if out := m.openssl(t, s.submit, external...); strings.Contains(out, "EXTERNAL") || strings.Contains(out, "250 2.0.0") || !strings.Contains(out, "530 5.7.0") {
		t.Errorf("without a row:\n%s", out)
	}
	tabard(t, "-c", s.config, "identity", "add", s.user, "--cert", m.chain)
	if out := m.openssl(t, s.submit, external...); !strings.Contains(out, "AUTH EXTERNAL PLAIN LOGIN") || !strings.Contains(out, "235 2.7.0") || !strings.Contains(out, "250 2.0.0") {
		t.Errorf("EXTERNAL:\n%s", out)
	}
	implicit := append([]string{"EHLO printer.example"}, mail...)
	if out := m.openssl(t, s.submit, implicit...); !strings.Contains(out, "250 2.0.0") {
		t.Errorf("without AUTH:\n%s", out)
	}
	other := append([]string{"EHLO printer.example", "AUTH EXTERNAL eA=="}, "MAIL FROM:<other@localhost>")
	if out := m.openssl(t, s.submit, other...); !strings.Contains(out, "535 5.7.8") || !strings.Contains(out, "550 5.7.1 Sender rejected") {
		t.Errorf("as another:\n%s", out)
	}
	eventually(t, "both messages are in the Maildir", func() bool { return len(s.maildir(s.user)) == 2 })
	for _, text := range s.maildir(s.user) {
		for _, want := range []string{" with ESMTPSA id ", ":verified)", "(auth=yes user=" + s.user + ")"} {
			if !strings.Contains(text, want) {
				t.Errorf("the message lacks %q:\n%s", want, text)
			}
		}
	}
	s.log.await(t, `smtp authentication user=`+s.user+` method=certificate identity=sha256:[0-9a-f]{64} result=ok`)

	// A live connection loses its next transaction.
	pair, err := tls.LoadX509KeyPair(m.chain, m.key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.trust("localhost")
	cfg.Certificates = []tls.Certificate{pair}
	live := dialSMTP(t, s.submit)
	live.startTLS(cfg)
	live.send("EHLO printer.example", "250")
	live.sendMail(s.user, s.user, "Subject: once\n\nbody")
	s.exec(`DELETE FROM client_identities`)
	eventually(t, "the certificate is refused", func() bool {
		reply := live.send("MAIL FROM:<"+s.user+">", "")
		live.send("RSET", "250")
		return strings.HasPrefix(reply, "550 5.7.1 Client certificate is not accepted any more")
	})
	live.send("MAIL FROM:<"+s.user+">", "530")
	s.log.await(t, `smtp authentication user=`+s.user+` method=certificate result=revoked`)
	if out := m.openssl(t, s.submit, external...); strings.Contains(out, "EXTERNAL") || strings.Contains(out, "250 2.0.0") {
		t.Errorf("after the row was deleted:\n%s", out)
	}
}

// TestPostfixLogsInByCertificate lets a real Postfix relay through Tabard with its
// certificate, and Tabard show its own to Postfix.
func TestPostfixLogsInByCertificate(t *testing.T) {
	s := startQuickstart(t)
	s.edit(func(text string) string {
		text = strings.Replace(text, " tls\n", " tls verify optional cert-auth <mail> received-auth\n", 1)
		return strings.Replace(text, "relay domain <mail> auth <mail>\n", "relay domain <mail> auth <mail> pki <mail>\n", 1)
	})
	m := s.machine("postfix.example")
	tabard(t, "-c", s.config, "identity", "add", s.user, "dns:postfix.example")

	_, port, _ := net.SplitHostPort(s.smtp)
	p, err := posttest.Start(context.Background(), posttest.Options{
		Hostname: "postfix.example", Domains: []string{"back.example"}, TLS: "encrypt", CertFile: m.chain, KeyFile: m.key,
		Relayhost: "[localhost]:" + port, ClientTLS: "encrypt", CAFile: filepath.Join(s.dir, "ca.pem"),
		Main: []string{"smtp_tls_cert_file = " + m.chain, "smtp_tls_key_file = " + m.key, "smtpd_tls_ask_ccert = yes", "smtpd_tls_received_header = yes"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Sendmail(context.Background(), "sender@postfix.example", []string{s.user}, "Subject: by certificate\n\nbody\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the message is in the Maildir", func() bool { return len(s.maildir(s.user)) == 1 })
	if text := s.maildir(s.user)[0]; !strings.Contains(text, " with ESMTPSA id ") || !strings.Contains(text, ":verified)") || !strings.Contains(text, "(auth=yes user="+s.user+")") {
		t.Errorf("from Postfix:\n%s\n%s", text, s.log)
	}

	// And back, from a client whose certificate Postfix verifies.
	_, back, _ := net.SplitHostPort(p.Addr)
	tabard(t, "-c", s.config, "relay", "add", "back.example", "smtp+tls://127.0.0.1:"+back)
	d := dialSMTP(t, s.submit)
	d.startTLS(s.trust("localhost"))
	d.send("EHLO client.example", "250")
	d.send("AUTH PLAIN "+plain(s.user, s.password), "235")
	d.sendMail(s.user, "x@back.example", "Subject: to Postfix\n\nbody")
	ctx, cancel := context.WithTimeout(context.Background(), waitLong)
	defer cancel()
	got, err := p.Await(ctx, 1)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, s.log, p.Log())
	}
	if !strings.Contains(got[0], `Client CN "localhost"`) || !strings.Contains(got[0], "(verified OK)") {
		t.Errorf("to Postfix:\n%s", got[0])
	}
	s.log.await(t, `mta cert-shown .*localhost`)
}
