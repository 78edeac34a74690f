package textlog

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"tabard/internal/eventlog"
)

// Files are read as newsyslog and logrotate pack them; what cannot be unpacked says how.
func TestPacked(t *testing.T) {
	t.Parallel()
	const line = "Nov 28 16:00:00 mx postfix/qmgr[5]: 1A2B3C4D5E: removed\n"
	bzip2, err := base64.StdEncoding.DecodeString("QlpoOTFBWSZTWQWaPrcAAA/fgAAQQAD/UD4BAAoHov1AIABBU2UxANB5ID1HlDGmIwjTAAAFfgsmF4A58qp56anlOh3HCGxGXwcELJ2saKkRT0FZ7oN+LuSKcKEgCzR9bg==")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, packed := range []string{line, string(bzip2), string(z.EncodeAll([]byte(line), nil))} {
		if g := read(t, Options{}, packed); g.r.Stats() != (Stats{Lines: 1}) {
			t.Errorf("%q: %+v %v", packed, g.r.Stats(), g.errs)
		}
	}
	r := New(Options{}, func(eventlog.Event) error { return nil })
	err = r.ReadAll(strings.NewReader("\xfd7zXZ\x00..."), func(int64, error) error { return nil })
	if !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "xz -dc") {
		t.Errorf("%v", err)
	}
}

// Half a line at the end makes no event, so that the whole one is not there beside it later.
func TestCutLine(t *testing.T) {
	t.Parallel()
	const whole = "Nov 28 16:00:00 mx postfix/smtpd[5]: NOQUEUE: reject: RCPT from a.example[192.0.2.1]: 550 5.1.1 <b@b.example>: Recipient address rejected: User unknown; from=<a@a.example> to=<b@b.example> proto=ESMTP helo=<a.example>\n"
	g := read(t, Options{}, whole+strings.TrimSuffix(whole, " helo=<a.example>\n"))
	if s := g.r.Stats(); len(g.events) != 1 || s.Lines != 2 || s.Unknown != 1 || len(g.errs) != 1 || !strings.Contains(g.errs[0], "0:2: not understood: it has no end") {
		t.Errorf("%v %+v %v", g.events, s, g.errs)
	}
}

// Lines of syslogd itself, which name no program, are another program's.
func TestSyslogItself(t *testing.T) {
	t.Parallel()
	g := read(t, Options{}, "Nov 28 16:00:00 mx last message repeated 3 times\nNov 28 16:00:00 mx -- MARK --\n")
	if s := g.r.Stats(); s != (Stats{Lines: 2, Others: 2}) {
		t.Errorf("%+v %v", s, g.errs)
	}
}
