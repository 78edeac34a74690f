//go:build linux && (amd64 || arm64)

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// tableProgram says that every domain is ours.
const tableProgram = `#!/bin/sh
while IFS='|' read -r word rest; do [ "$word|$rest" != "config|ready" ] || break; done
echo 'register|domain'
echo 'register|ready'
while IFS='|' read -r _ _ _ _ op service id key; do echo "$op-result|$id|found"; done
`

// lmtpSession writes each message into a file.
type lmtpSession struct{ path string }

func (lmtpSession) Mail(string, *smtp.MailOptions) error { return nil }
func (lmtpSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (lmtpSession) Reset()                               {}
func (lmtpSession) Logout() error                        { return nil }
func (s lmtpSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path, text, 0o600)
}

// lmtpSocket is an LMTP server behind a UNIX socket.
func lmtpSocket(t *testing.T, socket, path string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return lmtpSession{path}, nil }))
	srv.LMTP, srv.Domain = true, "lmtp.example"
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
}

// TestDeliveriesUnderSandbox: what the configuration names works, though what it
// needs is forbidden otherwise: programs as tables and for delivery, UNIX sockets.
func TestDeliveriesUnderSandbox(t *testing.T) {
	for name, c := range map[string]struct {
		action  string // %[1]s is the directory
		table   string
		nowhere bool // started without root, for a relay's socket is outside of its empty directory
	}{
		"a program delivers, another is a table": {action: `mda "cat > %[1]s/got" virtual <mail> userbase <mail>`, table: "proc:%[1]s/program"},
		"LMTP":                                   {action: `lmtp "%[1]s/lmtp" virtual <mail> userbase <mail>`, table: "%[1]s/list"},
		"a relay that is a socket":               {action: `relay host "lmtp://%[1]s/lmtp"`, table: "%[1]s/list", nowhere: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := reachable(t)
			var prepare func(*exec.Cmd)
			if c.nowhere {
				prepare = asNobody(t, dir)
			}
			for file, text := range map[string]string{"program": tableProgram, "list": "localhost\n"} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			got := filepath.Join(dir, "got")
			lmtpSocket(t, filepath.Join(dir, "lmtp"), got)
			s := quickstartIn(t, filepath.Join(dir, "q"), prepare)
			s.edit(func(text string) string {
				text = regexp.MustCompile(`(?m)^action "local" .*$`).ReplaceAllString(text, `action "local" `+fmt.Sprintf(c.action, dir))
				text = strings.Replace(text, "for domain <mail> action", "for domain <ours> action", 1)
				return "sandbox require\ntable ours \"" + fmt.Sprintf(c.table, dir) + "\"\n" + text
			})
			d := dialSMTP(t, s.smtp)
			d.send("EHLO client.example", "250")
			d.sendMail("a@client.example", s.user, "Subject: arrived\n\nbody")
			eventually(t, "the message is delivered", func() bool {
				text, err := os.ReadFile(got)
				return err == nil && strings.Contains(string(text), "Subject: arrived")
			})
		})
	}
}
