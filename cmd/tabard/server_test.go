package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/internal/selfca"
)

// trust returns a TLS client configuration that trusts the server's authority.
func (s *server) trust(name string) *tls.Config {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "ca.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// startTLS upgrades a dialogue.
func (d *dialogue) startTLS(cfg *tls.Config) tls.ConnectionState {
	d.t.Helper()
	d.send("EHLO client.example", "250")
	d.send("STARTTLS", "220")
	tc := tls.Client(d.conn, cfg)
	if err := tc.Handshake(); err != nil {
		d.t.Fatal(err)
	}
	d.conn = tc
	d.br.Reset(tc)
	return tc.ConnectionState()
}

func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// sendMail says one message in an open dialogue.
func (d *dialogue) sendMail(from, to, text string) {
	d.t.Helper()
	d.send("MAIL FROM:<"+from+">", "250")
	d.send("RCPT TO:<"+to+">", "250")
	d.send("DATA", "354")
	d.send(strings.ReplaceAll(text, "\n", "\r\n")+"\r\n.", "250")
}

// TestQuickstart is what a new user does: start, log in over TLS, send, find the
// mail; stop and start again.
func TestQuickstart(t *testing.T) {
	s := startQuickstart(t)
	d := dialSMTP(t, s.submit)
	ehlo := d.send("EHLO client.example", "250")
	if !strings.Contains(ehlo, "STARTTLS") || strings.Contains(ehlo, "AUTH") {
		t.Errorf("before TLS, EHLO says:\n%s", ehlo)
	}
	d.send("MAIL FROM:<"+s.user+">", "530 5.7.0")
	d.startTLS(s.trust("localhost"))
	if ehlo := d.send("EHLO client.example", "250"); !strings.Contains(ehlo, "AUTH PLAIN LOGIN") || strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("under TLS, EHLO says:\n%s", ehlo)
	}
	d.send("AUTH PLAIN "+plain(s.user, "wrong"), "535")
	d.send("AUTH PLAIN "+plain(s.user, s.password), "235")
	d.send("MAIL FROM:<other@localhost>", "5") // not an address of this user
	d.sendMail(s.user, s.user, "Subject: one\n\n..dot\nbody")
	d.send("QUIT", "221")
	eventually(t, "the message is in the Maildir", func() bool { return len(s.maildir(s.user)) == 1 })
	text := s.maildir(s.user)[0]
	for _, want := range []string{"Return-Path: <" + s.user + ">\n", "\n.dot\nbody\n", " with ESMTPSA id ", "(TLSv1.3:TLS_AES_128_GCM_SHA256:unchecked)", "\nDate: ", "\nMessage-ID: <"} {
		if !strings.Contains(text, want) {
			t.Errorf("the message lacks %q:\n%s", want, text)
		}
	}

	d = dialSMTP(t, s.smtp)
	d.send("EHLO other.example", "250")
	d.send("MAIL FROM:<a@other.example>", "250")
	d.send("RCPT TO:<unknown@localhost>", "550 5.1.1")
	d.send("RCPT TO:<someone@remote.example>", "550")
	d.send("RCPT TO:<postmaster@localhost>", "250")
	s.edit(func(text string) string { return text })
	eventually(t, "the same user still logs in", func() bool {
		d := dialSMTP(t, s.submit)
		d.startTLS(s.trust("localhost"))
		d.send("EHLO client.example", "250")
		d.send("AUTH PLAIN "+plain(s.user, s.password), "235")
		return true
	})
}

// TestCertificateRowIsServedAtOnce inserts and replaces a row with the sqlite3
// program and looks with openssl, as an administrator would.
func TestCertificateRowIsServedAtOnce(t *testing.T) {
	s := startQuickstart(t)
	db := filepath.Join(s.dir, "mail.db")
	for _, kt := range []selfca.KeyType{selfca.ECDSA, selfca.RSA, selfca.Ed25519} {
		pair, ca, err := selfSigned([]string{"mx.example.org"}, kt)
		if err != nil {
			t.Fatal(err)
		}
		stmt := "BEGIN; DELETE FROM certificates WHERE name = 'mx.example.org';" +
			"INSERT INTO certificates (name, chain, key) VALUES ('mx.example.org', '" + pair.Chain + "', '" + pair.Key + "'); COMMIT;"
		cmd := exec.Command("sqlite3", db)
		cmd.Stdin = strings.NewReader(stmt)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sqlite3: %v\n%s", err, out)
		}
		caFile := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(caFile, []byte(ca), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			for _, args := range [][]string{{"-starttls", "smtp", "-connect", s.smtp}, {"-connect", s.smtps}} {
				args = append([]string{"s_client", "-brief", version, "-servername", "mx.example.org", "-verify_hostname", "mx.example.org", "-CAfile", caFile, "-verify_return_error"}, args...)
				cmd := exec.Command("openssl", args...)
				cmd.Stdin = strings.NewReader("QUIT\r\n")
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(string(out), "Verification: OK") || !strings.Contains(string(out), "CN = mx.example.org") {
					t.Errorf("%s %s %v: %v\n%s\n%s", kt, version, args, err, out, s.log)
				}
			}
		}
	}
	if st := dialSMTP(t, s.smtp).startTLS(s.trust("localhost")); st.PeerCertificates[0].DNSNames[0] != "localhost" {
		t.Errorf("another name gets %v", st.PeerCertificates[0].DNSNames)
	}
}

// TestRowsApplyToRunningServer changes users and domains under a running server.
func TestRowsApplyToRunningServer(t *testing.T) {
	s := startQuickstart(t)
	// A commit is in force within milliseconds, which nobody here can see.
	rcpt := func(addr, code string) {
		t.Helper()
		d := dialSMTP(t, s.smtp)
		d.send("EHLO other.example", "250")
		d.send("MAIL FROM:<>", "250")
		reply := ""
		eventually(t, addr+" gets "+code, func() bool {
			reply = d.send("RCPT TO:<"+addr+">", "")
			return strings.HasPrefix(reply, code)
		})
	}
	rcpt("alice@example.org", "550")
	s.exec(`INSERT INTO domains (name) VALUES ('example.org')`)
	rcpt("alice@example.org", "550 5.1.1")
	s.exec(`INSERT INTO aliases (address, target) VALUES ('alice@example.org', ?)`, s.user)
	rcpt("alice@example.org", "250")
	rcpt("Alice+tag@Example.ORG", "250")
	// A table that errors is a temporary failure, and it heals.
	s.exec(`ALTER TABLE aliases RENAME TO aliases_gone`)
	rcpt("bob@example.org", "451")
	rcpt("alice@example.org", "250") // known from before
	s.exec(`ALTER TABLE aliases_gone RENAME TO aliases`)
	rcpt("bob@example.org", "550")
	rcpt("alice@example.org", "250")
	s.exec(`DELETE FROM aliases`)
	rcpt("alice@example.org", "550 5.1.1")
}

// TestSendmail hands in messages as programs on the machine do.
func TestSendmail(t *testing.T) {
	s := startQuickstart(t)
	link := filepath.Join(t.TempDir(), "sendmail")
	if err := os.Symlink(os.Args[0], link); err != nil {
		t.Fatal(err)
	}
	send := func(input string, args ...string) (string, int) {
		cmd := exec.Command(link, append([]string{"-C", s.config}, args...)...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := send("Subject: a\nTo: "+s.user+"\nBcc: postmaster@localhost\n\nline\n.\nnot sent\n", "-t", "-F", "A Person", "-f", "cron@localhost"); code != 0 {
		t.Fatalf("sendmail -t: exit %d: %s", code, out)
	}
	s.log.await(t, `nrcpt=2`) // both are the same mailbox, which gets one copy
	eventually(t, "it arrives", func() bool { return len(s.maildir(s.user)) == 1 })
	text := s.maildir(s.user)[0]
	if strings.Contains(text, "Bcc") || strings.Contains(text, "not sent") || !strings.Contains(text, "\nFrom: \"A Person\" <cron@localhost>\n") {
		t.Errorf("unexpected message:\n%s", text)
	}
	if out, code := send("Subject: b\n\n.\nafter the dot\n", "-i", s.user); code != 0 {
		t.Fatalf("sendmail -i: exit %d: %s", code, out)
	}
	eventually(t, "the second arrives", func() bool { return len(s.maildir(s.user)) == 2 })
	if !strings.Contains(strings.Join(s.maildir(s.user), ""), "\n.\nafter the dot\n") {
		t.Error("-i lost what follows a lone dot")
	}
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"nobody@localhost"}, exNoUser}, {[]string{}, exUsage}, {[]string{"-z"}, exUsage}, {[]string{"a b@localhost"}, exDataErr}, {[]string{"-bd"}, exUsage},
	} {
		if out, code := send("\nx\n", tt.args...); code != tt.code {
			t.Errorf("sendmail %v: exit %d, want %d: %s", tt.args, code, tt.code, out)
		}
	}
	s.stop()
	if out, code := send("\nx\n", s.user); code != exTempFail {
		t.Errorf("without a server: exit %d, want %d: %s", code, exTempFail, out)
	}
}

// TestCleanStop lets a transaction that is under way when SIGTERM comes finish,
// and refuses new ones.
func TestCleanStop(t *testing.T) {
	s := startQuickstart(t)
	busy, idle := dialSMTP(t, s.smtp), dialSMTP(t, s.smtp)
	busy.send("EHLO busy.example", "250")
	idle.send("EHLO idle.example", "250")
	busy.send("MAIL FROM:<a@busy.example>", "250")
	busy.send("RCPT TO:<"+s.user+">", "250")
	busy.send("DATA", "354")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	idle.expect("421")
	if conn, err := net.Dial("tcp", s.smtp); err == nil {
		_ = conn.SetDeadline(time.Now().Add(waitLong))
		if n, _ := conn.Read(make([]byte, 1)); n > 0 {
			t.Error("a stopping server greets")
		}
		_ = conn.Close()
	}
	busy.send("Subject: in time\r\n\r\nbody\r\n.", "250")
	<-s.done
	if s.exit != nil {
		t.Errorf("exit: %v", s.exit)
	}
	s.run()
	eventually(t, "the message arrives", func() bool { return len(s.maildir(s.user)) == 1 })
}
