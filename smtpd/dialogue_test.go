package smtpd

import (
	"strings"
	"testing"
)

func TestMessage(t *testing.T) {
	r := start(t)
	c := r.hello()
	c.envelope()
	c.do("DATA", "354 ")
	got := c.do("Subject: x\r\n\r\n..dot\r\nend\r\n.", "250 2.0.0 ")
	m := r.only()
	if want := m.Message.ID.String() + " Message accepted for delivery\r\n"; !strings.HasSuffix(got, want) {
		t.Errorf("reply %q, want %q", got, want)
	}
	if got, want := m.content(), "Subject: x\r\n\r\n.dot\r\nend\r\n"; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
	c.do("QUIT", "221 2.0.0 Bye")
	c.gone()
	if m.Message.Sender != "a@client.example" || m.Message.Size != int64(len(m.body)) || len(m.Recipients) != 1 {
		t.Errorf("message %+v", m.Submission)
	}
	if e := m.Recipients[0]; e.Address != "b@example.org" || e.Recipient != "b@example.org" || e.Action != "local" || e.ID.Message != m.Message.ID {
		t.Errorf("envelope %+v", e)
	}
}
