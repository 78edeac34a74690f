package smtpd

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/queue"
)

// scheduler is a server on which mail may be held for an hour, by those who log in.
func scheduler(t *testing.T, options ...option) *rig {
	return start(t, append([]option{withTLS(config.TLSStart), withAuth(config.AuthOptional), onConfig(func(c *Config) {
		c.MaxPriority, c.FutureRelease, c.MaxErrors = 6, time.Hour, 100
	})}, options...)...)
}

func (c *client) login() {
	c.do("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00gilles\x00secret")), "235")
}

// sendWith sends a message whose MAIL has parameters, and returns the last reply.
func (c *client) sendWith(params string) string {
	c.do("MAIL FROM:<a@b.example> "+params, "250")
	c.do("RCPT TO:<b@c.example>", "250")
	c.do("DATA", "354")
	return c.do("A: b\r\n\r\nx\r\n.", "250")
}

func TestWishesAreOffered(t *testing.T) {
	t.Parallel()
	r := scheduler(t)
	got := r.secure().do("EHLO x", "250")
	for _, want := range []string{"MT-PRIORITY\r\n", "DELIVERBY\r\n", "FUTURERELEASE 3600 20"} {
		if !strings.Contains(got, "250-"+want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	got = start(t, onListener(func(l *Listener) { l.NoDSN = true })).hello().do("EHLO x", "250")
	if !strings.Contains(got, "MT-PRIORITY") || strings.Contains(got, "DELIVERBY") || strings.Contains(got, "FUTURERELEASE") {
		t.Errorf("without reports and accounts: %q", got)
	}
}

func TestWishesGoWithTheMessage(t *testing.T) {
	t.Parallel()
	r := scheduler(t)
	c := r.secure()
	n := 0
	next := func(params string) (queue.Message, string, string) {
		t.Helper()
		reply := c.sendWith(params)
		s := r.queue.all()[n]
		n++
		return s.Message, s.body, reply
	}
	near := func(what string, got time.Time, in time.Duration) {
		t.Helper()
		if off := time.Until(got) - in; off > time.Second || off < -time.Minute {
			t.Errorf("%s: in %v, want %v", what, time.Until(got), in)
		}
	}
	m, body, reply := next("SIZE=10")
	if m.Priority != 0 || !m.Release.IsZero() || m.DeliverBy != (queue.DeliverBy{}) || strings.Contains(body, "PRIORITY") || !strings.HasPrefix(reply, "250 2.0.0 ") {
		t.Errorf("without a wish: %+v, %q", m, reply)
	}
	m, body, reply = next("MT-PRIORITY=5 BODY=8BITMIME")
	if m.Priority != 0 || !m.EightBit || !strings.Contains(body, " PRIORITY 0\r\n") || !strings.HasPrefix(reply, "250 2.3.6 0 ") {
		t.Errorf("raised by a stranger: %+v, %q", m, reply)
	}
	m, body, reply = next("mt-priority=-9")
	if m.Priority != -9 || !strings.Contains(body, " PRIORITY -9\r\n") || !strings.HasPrefix(reply, "250 2.0.0 ") {
		t.Errorf("lowered by a stranger: %+v, %q", m, reply)
	}
	m, _, _ = next("by=+90;r")
	near("by R", m.DeliverBy.Time, 90*time.Second)
	if m.DeliverBy.Notify || m.DeliverBy.Trace {
		t.Errorf("by R: %+v", m.DeliverBy)
	}
	m, _, _ = next("BY=-90;NT")
	near("by NT", m.DeliverBy.Time, -90*time.Second)
	if !m.DeliverBy.Notify || !m.DeliverBy.Trace {
		t.Errorf("by NT: %+v", m.DeliverBy)
	}
	c.do("MAIL FROM:<a@b.example> HOLDFOR=60", "530 5.7.0")
	c.login()
	if m, _, _ = next("MT-PRIORITY=4"); m.Priority != 4 {
		t.Errorf("raised: %+v", m)
	}
	if m, _, reply = next("MT-PRIORITY=9"); m.Priority != 6 || !strings.HasPrefix(reply, "250 2.3.6 6 ") {
		t.Errorf("raised too far: %+v, %q", m, reply)
	}
	m, _, _ = next("HOLDFOR=60 BY=10;R")
	near("held for", m.Release, time.Minute)
	near("held for, by", m.DeliverBy.Time, 70*time.Second)
	m, _, _ = next("HOLDUNTIL=" + time.Now().Add(30*time.Minute).UTC().Format(time.RFC3339))
	near("held until", m.Release, 30*time.Minute)
	c.sendWith("HOLDUNTIL=2001-02-03t04:05:06+01:00")
}

func TestMalformedWishes(t *testing.T) {
	t.Parallel()
	r := scheduler(t)
	c := r.secure()
	c.login()
	for _, params := range []string{
		"MT-PRIORITY", "MT-PRIORITY=", "MT-PRIORITY=10", "MT-PRIORITY=-0", "MT-PRIORITY=+1", "MT-PRIORITY=x", "MT-PRIORITY=1 MT-PRIORITY=1",
		"HOLDFOR", "HOLDFOR=-1", "HOLDFOR=+1", "HOLDFOR=1234567890", "HOLDFOR=3700", "HOLDFOR=1 HOLDUNTIL=2001-02-03T04:05:06Z",
		"HOLDUNTIL=", "HOLDUNTIL=tomorrow", "HOLDUNTIL=2001-02-03", "HOLDUNTIL=9999-02-03T04:05:06Z",
		"BY", "BY=", "BY=1", "BY=1;", "BY=;R", "BY=1;X", "BY=1;RTT", "BY=1;T", "BY=0;R", "BY=-1;R", "BY=+-1;N", "BY=1234567890;N", "BY=1;R;T",
	} {
		c.do("MAIL FROM:<a@b.example> "+params, "501 5.5.4")
	}
	c.do(`MAIL FROM:<"a> BY=1;R"@b.example>`, "250") // that is its name
	c.do("RSET", "250")
	c.do("HELO x", "250")
	c.do("MAIL FROM:<a@b.example> MT-PRIORITY=1", "555 5.5.4")
	other := start(t).hello()
	other.do("MAIL FROM:<a@b.example> HOLDFOR=1", "555 5.5.4")
}
