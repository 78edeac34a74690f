package mta

import (
	"regexp"
	"strings"
	"testing"

	"tabard/internal/eventlog/eventlogtest"
	"tabard/queue"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	rec := &eventlogtest.Recorder{}
	w := newWorld(t, func(c *Config) { c.Events = rec })
	refusing, taking := newPeer(t), newPeer(t)
	w.at("192.0.2.1:25", refusing.on("", say("421 4.7.0 too busy")).start())
	w.at("192.0.2.2:25", taking.on("RCPT", func(_ *peerConn, line string) (string, bool) {
		if strings.Contains(line, "bad") {
			return "550-5.1.1 unknown\r\n550 5.1.1 for ever", true
		}
		return "250 2.1.5 ok", true
	}).start())
	w.start()
	res := w.deliver(job(1, "good@example.org", "bad@example.org"))
	wantResult(t, res[0], queue.Delivered, 250)
	wantResult(t, w.one("nobody@other.example"), queue.Deferred, 0)
	w.stop()
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	w.done <- nil
	id := regexp.MustCompile(`\b[0-9a-f]{16}\b`)
	got := id.ReplaceAllString(rec.Lines("message envelope sender domain source"), "S")
	want := `session id=S direction=out peer=192.0.2.1 name=mx1.example.org helo=us.example.net reason=greeting refused: 421 4.7.0 too busy
attempt session=S address=good@example.org action=out host=mx2.example.org peer=192.0.2.2 tls_wanted=may tls_by=smtp+tls:// tls_had=none outcome=ok code=250 status=2.0.0 text=taken
attempt session=S address=bad@example.org action=out host=mx2.example.org peer=192.0.2.2 tls_wanted=may tls_by=smtp+tls:// tls_had=none outcome=perm code=550 status=5.1.1 text=unknown for ever
attempt address=nobody@other.example action=out host=other.example tls_wanted=may tls_by=smtp+tls:// outcome=temp status=4.4.1 text=connect to 192.0.2.3:25: dial tcp: connection refused
session id=S direction=out peer=192.0.2.2 name=mx2.example.org helo=us.example.net messages=1 reason=quit
`
	if got != want {
		t.Errorf("told\n%swant\n%s", got, want)
	}
}
