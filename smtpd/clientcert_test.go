package smtpd

import (
	"crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"tabard/internal/config"
	"tabard/internal/selfca"
	"tabard/lookup"
)

// people is a lookup that knows a certificate, until it is revoked or cannot say.
type people struct {
	user    atomic.Pointer[string]
	down    atomic.Bool
	verdict lookup.Verdict
}

func newPeople(user string) *people {
	p := &people{verdict: lookup.Verdict{State: lookup.Verified, Identity: "CN=client"}}
	p.user.Store(&user)
	return p
}

func (p *people) set(user string) { p.user.Store(&user) }

func (p *people) identify(r lookup.VerifyRequest) (lookup.Identity, error) {
	if p.down.Load() {
		return lookup.Identity{}, errors.New("the table is down")
	}
	if r.Use != lookup.UseClient || len(r.Chain) == 0 {
		return lookup.Identity{}, errors.New("not a client's chain")
	}
	return lookup.Identity{Verdict: p.verdict, User: *p.user.Load(), By: "dns:client"}, nil
}

// known starts a server that knows people by their certificates, and returns a
// client with one.
func (p *people) known(t *testing.T, auth config.AuthMode, verify config.Verify) (*rig, *client) {
	t.Helper()
	r := start(t, withTLS(config.TLSRequire), withAuth(auth), onListener(func(l *Listener) {
		l.Verify, l.HasCertAuth, l.ReceivedAuth = verify, true, true
	}), onLookup(func(f *fakeLookup) { f.identify = p.identify }))
	c := r.hello()
	c.do("STARTTLS", "220")
	cfg := r.clientTLS()
	cfg.Certificates = []tls.Certificate{issue(t, authority(t), selfca.ECDSA, "client")}
	c.startTLS(cfg)
	return r, c
}

func (c *client) message() {
	c.t.Helper()
	c.do("MAIL FROM:<a@b.example>", "250")
	c.do("RCPT TO:<a@b.example>", "250")
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
}

// A certificate that is somebody's is a login by itself.
func TestCertificateLogsIn(t *testing.T) {
	r, c := newPeople("gilles").known(t, config.AuthRequire, config.VerifyOptional)
	if ehlo := c.do("EHLO x", "250"); !strings.Contains(ehlo, "AUTH EXTERNAL PLAIN LOGIN") {
		t.Errorf("EHLO: %q", ehlo)
	}
	c.message()
	m := r.only()
	if m.Message.User != "gilles" || !strings.Contains(m.body, "with ESMTPSA") || !strings.Contains(m.body, ":verified)") || !strings.Contains(m.body, "user=gilles") {
		t.Errorf("user %q, body %q", m.Message.User, m.body)
	}
	if got := r.lookup.sessions[0]; got.User != "gilles" || got.Peer.State != lookup.Verified {
		t.Errorf("lookup was told %+v", got)
	}
	r.await(`user=gilles method=certificate identity=dns:client result=ok`)
}

func TestExternal(t *testing.T) {
	tests := []struct {
		name  string
		turns []turn
		user  string
	}{
		{"without identity", []turn{{"AUTH EXTERNAL =", "235 2.7.0"}}, "gilles"},
		{"with identity", []turn{{"AUTH EXTERNAL " + b64("gilles"), "235"}}, "gilles"},
		{"in two steps", []turn{{"AUTH EXTERNAL", "334 \r\n"}, {b64("gilles"), "235"}}, "gilles"},
		{"in two steps, without identity", []turn{{"AUTH EXTERNAL", "334"}, {"", "235"}}, "gilles"},
		{"as another", []turn{{"AUTH EXTERNAL " + b64("root"), "535 5.7.8"}}, "gilles"},
		{"NUL", []turn{{"AUTH EXTERNAL " + b64("gilles\x00root"), "501"}}, "gilles"},
		{"malformed", []turn{{"AUTH EXTERNAL !!!", "501"}}, "gilles"},
		{"cancelled", []turn{{"AUTH EXTERNAL", "334"}, {"*", "501"}}, "gilles"},
		{"twice", []turn{{"AUTH EXTERNAL =", "235"}, {"AUTH EXTERNAL =", "503"}, {"AUTH PLAIN " + b64("\x00eric\x00secret"), "503"}}, "gilles"},
		{"a password counts more", []turn{{"AUTH PLAIN " + b64("\x00eric\x00secret"), "235"}}, "eric"},
		{"a wrong password changes nothing", []turn{{"AUTH PLAIN " + b64("\x00eric\x00wrong"), "535"}}, "gilles"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, c := newPeople("gilles").known(t, config.AuthOptional, config.VerifyOptional)
			r.lookup.auth = func(a lookup.AuthRequest) (lookup.AuthReply, error) {
				return lookup.AuthReply{OK: a.Password == "secret", User: a.User}, nil
			}
			c.do("EHLO x", "250")
			for _, turn := range tt.turns {
				c.do(turn.send, turn.want)
			}
			c.message()
			if got := r.only().Message.User; got != tt.user {
				t.Errorf("user %q; want %q", got, tt.user)
			}
		})
	}
}

// Without passwords on the listener, EXTERNAL alone is offered, and only to whom
// it is of use.
func TestExternalAlone(t *testing.T) {
	_, c := newPeople("gilles").known(t, config.AuthNone, config.VerifyRequire)
	if ehlo := c.do("EHLO x", "250"); !strings.Contains(ehlo, "AUTH EXTERNAL\r\n") {
		t.Errorf("EHLO: %q", ehlo)
	}
	c.do("AUTH PLAIN "+b64("\x00gilles\x00secret"), "504")
	c.do("AUTH EXTERNAL =", "235")
	r, c := newPeople("").known(t, config.AuthNone, config.VerifyOptional)
	if ehlo := c.do("EHLO x", "250"); strings.Contains(ehlo, "AUTH") {
		t.Errorf("EHLO to nobody: %q", ehlo)
	}
	c.do("AUTH EXTERNAL =", "503")
	c.message()
	if m := r.only(); m.Message.User != "" || !strings.Contains(m.body, "with ESMTPS ") || !strings.Contains(m.body, ":verified)") {
		t.Errorf("user %q, body %q", m.Message.User, m.body)
	}
	plain := r.secure()
	if ehlo := plain.do("EHLO x", "250"); strings.Contains(ehlo, "AUTH") {
		t.Errorf("EHLO without a certificate: %q", ehlo)
	}
}

// Who is revoked loses the next transaction, whether or not EXTERNAL was said.
func TestRevokedCertificate(t *testing.T) {
	for _, external := range []bool{false, true} {
		p := newPeople("gilles")
		r, c := p.known(t, config.AuthOptional, config.VerifyRequire)
		c.do("EHLO x", "250")
		if external {
			c.do("AUTH EXTERNAL =", "235")
		}
		c.message()
		p.set("")
		c.do("MAIL FROM:<a@b.example>", "550 5.7.1 Client certificate is not accepted any more")
		r.await("method=certificate result=revoked")
		c.message() // as anybody
		if m := r.queue.all()[1]; m.Message.User != "" || strings.Contains(m.body, "ESMTPSA") {
			t.Errorf("user %q, body %q", m.Message.User, m.body)
		}
		p.set("eric")
		c.message()
		if m := r.queue.all()[2]; m.Message.User != "eric" {
			t.Errorf("user %q after the row changed", m.Message.User)
		}
	}
	// Who said EXTERNAL does not become somebody else.
	changing := newPeople("gilles")
	_, c := changing.known(t, config.AuthRequire, config.VerifyOptional)
	c.do("EHLO x", "250")
	c.do("AUTH EXTERNAL =", "235")
	changing.set("eric")
	c.do("MAIL FROM:<a@b.example>", "550 5.7.1")
	// A password does not go with the certificate.
	p := newPeople("gilles")
	r, c := p.known(t, config.AuthOptional, config.VerifyOptional)
	c.do("EHLO x", "250")
	c.do("AUTH PLAIN "+b64("\x00gilles\x00secret"), "235")
	p.set("")
	c.message()
	if m := r.only(); m.Message.User != "gilles" {
		t.Errorf("user %q after a password", m.Message.User)
	}
}

// When nobody can say whose a certificate is, mail is deferred, not refused.
func TestCertificateCannotBeChecked(t *testing.T) {
	for _, verify := range []config.Verify{config.VerifyOptional, config.VerifyRequire} {
		p := newPeople("gilles")
		p.down.Store(true)
		_, c := p.known(t, config.AuthRequire, verify)
		c.do("EHLO x", "250")
		c.do("AUTH EXTERNAL =", "454 4.7.0")
		c.do("MAIL FROM:<a@b.example>", "451 4.7.0 Client certificate cannot be checked now")
		p.down.Store(false)
		c.message()
		p.down.Store(true)
		c.do("MAIL FROM:<a@b.example>", "451 4.7.0")
		p.set("") // revoked while nobody could tell
		p.down.Store(false)
		c.do("MAIL FROM:<a@b.example>", "550 5.7.1")
	}
}
