package smtpd

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"tabard/internal/config"
	"tabard/lookup"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuth(t *testing.T) {
	good := b64("\x00gilles\x00secret")
	tests := []struct {
		name  string
		turns []turn
		ok    bool
	}{
		{"PLAIN", []turn{{"AUTH PLAIN " + good, "235 2.7.0"}}, true},
		{"PLAIN lower case", []turn{{"auth plain " + good, "235"}}, true},
		{"PLAIN in two steps", []turn{{"AUTH PLAIN", "334 \r\n"}, {good, "235"}}, true},
		{"PLAIN with identity", []turn{{"AUTH PLAIN " + b64("gilles\x00gilles\x00secret"), "235"}}, true},
		{"PLAIN as another", []turn{{"AUTH PLAIN " + b64("root\x00gilles\x00secret"), "535 5.7.8"}}, false},
		{"LOGIN", []turn{{"AUTH LOGIN", "334 VXNlcm5hbWU6\r\n"}, {b64("gilles"), "334 UGFzc3dvcmQ6\r\n"}, {b64("secret"), "235"}}, true},
		{"LOGIN with user", []turn{{"AUTH LOGIN " + b64("gilles"), "334 UGFzc3dvcmQ6"}, {b64("secret"), "235"}}, true},
		{"wrong password", []turn{{"AUTH PLAIN " + b64("\x00gilles\x00wrong"), "535 5.7.8"}}, false},
		{"no user", []turn{{"AUTH PLAIN " + b64("\x00\x00secret"), "535"}}, false},
		{"lines in user", []turn{{"AUTH PLAIN " + b64("\x00gilles\nok|x\x00secret"), "535"}}, false},
		{"lines in password", []turn{{"AUTH PLAIN " + b64("\x00gilles\x00secret\r\nlookup"), "535"}}, false},
		{"NUL in LOGIN", []turn{{"AUTH LOGIN " + b64("gilles\x00x"), "334"}, {b64("secret"), "535"}}, false},
		{"malformed", []turn{{"AUTH PLAIN " + b64("gilles"), "501 5.5.2"}, {"AUTH PLAIN !!!", "501 5.5.2"}, {"AUTH PLAIN", "334"}, {"***", "501"}}, false},
		{"cancelled", []turn{{"AUTH PLAIN", "334"}, {"*", "501 5.7.0"}, {"AUTH LOGIN", "334"}, {"*", "501"}}, false},
		{"mechanism", []turn{{"AUTH CRAM-MD5", "504 5.5.4"}, {"AUTH", "501 5.5.4"}}, false},
		{"twice", []turn{{"AUTH PLAIN " + good, "235"}, {"AUTH PLAIN " + good, "503 5.5.1"}}, true},
		{"in a transaction", []turn{{"MAIL FROM:<a@b.example>", "250"}, {"AUTH PLAIN " + good, "503"}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, withTLS(config.TLSStart), withAuth(config.AuthOptional))
			c := r.secure()
			for _, turn := range tt.turns {
				c.do(turn.send, turn.want)
			}
			c.do("RSET", "250")
			c.envelope()
			want := ""
			if tt.ok {
				want = "gilles"
			}
			if got := r.lookup.sessions[0].User; got != want {
				t.Errorf("user %q, want %q", got, want)
			}
			if log := r.log.String(); strings.Contains(log, "secret") || strings.Contains(log, good) {
				t.Errorf("the log has a password: %s", log)
			}
		})
	}
}

// TestAuthFailures: the third wrong password ends the session.
func TestAuthFailures(t *testing.T) {
	r := start(t, withTLS(config.TLSStart), withAuth(config.AuthRequire))
	c := r.secure()
	bad := "AUTH PLAIN " + b64("\x00gilles\x00wrong")
	c.do(bad, "535")
	c.do(bad, "535")
	c.do(bad, "421 4.7.0")
	c.gone()
	r.await("smtp authentication\" session=")
	if n := strings.Count(r.log.String(), "user=gilles result=permfail"); n != 3 {
		t.Errorf("%d failures logged", n)
	}
}

func TestAuthUnavailable(t *testing.T) {
	r := start(t, withTLS(config.TLSStart), withAuth(config.AuthRequire), onLookup(func(f *fakeLookup) {
		f.auth = func(lookup.AuthRequest) (lookup.AuthReply, error) {
			return lookup.AuthReply{}, errors.New("no database")
		}
	}))
	c := r.secure()
	c.do("AUTH PLAIN "+b64("\x00gilles\x00secret"), "454 4.7.0")
	c.do("MAIL FROM:<a@b.example>", "530 5.7.0 Must issue an AUTH command first")
	r.await("result=tempfail")
}

func TestSenders(t *testing.T) {
	r := start(t, withTLS(config.TLSStart), withAuth(config.AuthOptional), onListener(func(l *Listener) { l.HasSenders = true }),
		onLookup(func(f *fakeLookup) {
			f.sender = func(q lookup.SenderRequest) (lookup.SenderReply, error) {
				if q.Sender == "broken@b.example" {
					return lookup.SenderReply{}, errors.New("no database")
				}
				return lookup.SenderReply{Allowed: q.User == "gilles" && q.Sender == "gilles@b.example"}, nil
			}
		}))
	c := r.secure()
	c.do("MAIL FROM:<anybody@b.example>", "250") // not authenticated: rules decide
	c.do("RSET", "250")
	c.do("AUTH PLAIN "+b64("\x00gilles\x00secret"), "235")
	c.do("MAIL FROM:<other@b.example>", "550 5.7.1 Sender rejected")
	c.do("MAIL FROM:<>", "550 5.7.1")
	c.do("MAIL FROM:<broken@b.example>", "451 4.3.0")
	c.do("MAIL FROM:<gilles@b.example>", "250")
}

// TestAuthNeverAsks: user names and passwords with line ends do not leave smtpd
// (OpenSMTPD 7.8.0p1: they were lines in a table program's protocol).
func TestAuthNeverAsks(t *testing.T) {
	r := start(t, withTLS(config.TLSStart), withAuth(config.AuthOptional), onLookup(func(f *fakeLookup) {
		f.auth = func(q lookup.AuthRequest) (lookup.AuthReply, error) {
			t.Errorf("asked about %+v", q)
			return lookup.AuthReply{OK: true}, nil
		}
	}))
	for _, bad := range []string{"\x00a\nb\x00c", "\x00a\x00b\rc", "\x00\x00x", "\x00a\rb\x00c", "\x00a\x00b\nc"} {
		c := r.secure()
		c.do("AUTH PLAIN "+b64(bad), "535")
	}
	for _, bad := range [][2]string{{"a\x00b", "c"}, {"a", "b\x00c"}, {"a\n", "b"}, {"", "b"}} {
		c := r.secure()
		c.do("AUTH LOGIN", "334")
		c.do(b64(bad[0]), "334")
		c.do(b64(bad[1]), "535")
	}
}
