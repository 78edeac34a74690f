package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/internal/dovecottest"
)

// TestDeliverToDovecot delivers to a real Dovecot by LMTP, by action and by relay
// URL, over TCP and over a socket. Of several recipients one is unknown, which the
// server says at RCPT, and the mailbox of another is broken, which it says after
// the message, when it has taken that for the others.
func TestDeliverToDovecot(t *testing.T) {
	domains := []string{"tcp.example", "socket.example", "relay.example", "relay-socket.example"}
	var users []string
	for _, domain := range domains {
		users = append(users, "one@"+domain, "two@"+domain, "broken@"+domain)
	}
	d := dovecottest.Begin(t, users...)
	s := newServer(t)
	var conf strings.Builder
	fmt.Fprintf(&conf, "%scontrol \"%s\"\nqueue \"sqlite:%s\"\nhostname mx.example\nlisten on 127.0.0.1 port %s\nqueue retry 1h\n",
		asRoot(), filepath.Join(s.dir, "control.sock"), filepath.Join(s.dir, "queue.db"), portOf(t, s.smtp))
	uid := os.Getuid()
	if uid == 0 {
		uid = 4711
	}
	fmt.Fprintf(&conf, "table boxes { \"@\" = box }\ntable users { box = \"%d:%d:/\" }\n", uid, uid)
	for domain, action := range map[string]string{
		"tcp.example":          `lmtp "` + d.Addr + `" rcpt-to virtual <boxes> userbase <users>`,
		"socket.example":       `lmtp "` + d.Socket + `" rcpt-to virtual <boxes> userbase <users>`,
		"relay.example":        `relay host "lmtp://` + d.Addr + `"`,
		"relay-socket.example": `relay host "lmtp://` + d.Socket + `"`,
	} {
		fmt.Fprintf(&conf, "action %q %s\nmatch from any for domain %q action %q\n", domain, action, domain, domain)
	}
	s.write(s.config, conf.String())
	s.run()
	t.Cleanup(s.stop)
	for _, domain := range domains {
		t.Run(domain, func(t *testing.T) {
			if err := d.Break("broken@" + domain); err != nil {
				t.Fatal(err)
			}
			c := dialSMTP(t, s.smtp)
			c.send("EHLO client.example", "250")
			c.send("MAIL FROM:<>", "250") // nobody is told of failures
			for _, user := range []string{"one", "nobody", "two", "broken"} {
				c.send("RCPT TO:<"+user+"@"+domain+">", "250")
			}
			c.send("DATA", "354")
			c.send("Subject: hello\r\n\r\n..dot\r\n.", "250")
			s.log.await(t, `delivery.* to=<nobody@`+domain+`> .*result=PermFail .*User doesn't exist`)
			s.log.await(t, `delivery.* to=<broken@`+domain+`> .*result=TempFail .*Internal error`)
			for _, user := range []string{"one", "two"} {
				s.log.await(t, `delivery.* to=<`+user+`@`+domain+`> .*result=Ok .*Saved`)
				got, err := d.Messages(user + "@" + domain)
				if err != nil || len(got) != 1 || !strings.Contains(got[0], "by mx.example (Tabard) with ESMTP id ") || !strings.HasSuffix(got[0], "\n\n.dot\n") {
					t.Errorf("mailbox of %s: %q, %v", user, got, err)
				}
			}
		})
	}
}
