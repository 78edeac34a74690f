package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A damaged queue costs clients a 451 at MAIL; everything says what to do, and after
// that it works.
func TestDamagedQueue(t *testing.T) {
	s := startQuickstart(t)
	s.stop()
	path := filepath.Join(s.dir, "queue.db")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := append(good[:4096:4096], strings.Repeat("\xff", len(good)-4096)...)
	if err := errors.Join(os.WriteFile(path, bad, 0o600), os.WriteFile(filepath.Join(s.dir, "messages", ".lock"), []byte("in use\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.run()
	s.log.await(t, `the queue is damaged: .*tabard queue repair -c `)
	d := dialSMTP(t, s.smtp)
	d.send("EHLO client.example", "250")
	eventually(t, "MAIL is refused", func() bool {
		d.write("MAIL FROM:<a@client.example>\r\n")
		if strings.HasPrefix(d.expect(""), "451 4.3.0") {
			return true
		}
		d.send("RSET", "250")
		return false
	})
	for _, args := range [][]string{{"queue", "ls"}, {"status"}} {
		if out := tabard(t, append(args, "-c", s.config)...); !strings.Contains(out, "tabard queue repair -c "+s.config) {
			t.Errorf("%v: %s", args, out)
		}
	}
	out, err := program("check", "-c", s.config).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exConfig || !strings.Contains(string(out), "tabard queue repair -c "+s.config) {
		t.Errorf("check: %v, %s", err, out)
	}
	s.stop()
	if out := tabard(t, "queue", "repair", "-c", s.config); !strings.Contains(out, "saved: 0 messages") || !strings.Contains(out, "queue.db.damaged-") {
		t.Errorf("repair: %s", out)
	}
	s.run()
	d = dialSMTP(t, s.smtp)
	d.send("EHLO client.example", "250")
	d.sendMail("a@client.example", s.user, "Subject: after the repair\n\nbody")
}
