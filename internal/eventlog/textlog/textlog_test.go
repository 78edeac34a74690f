package textlog

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tabard/internal/eventlog"
)

// told is an event on one line, without its key.
func told(e eventlog.Event) string {
	line := string(e.Kind())
	for _, f := range e.Fields() {
		switch v := f.Value.(type) {
		case *string:
			if *v != "" {
				line += fmt.Sprintf(" %s=%q", f.Name, *v)
			}
		case *int64:
			if *v != 0 && f.Name != "key" {
				line += fmt.Sprintf(" %s=%d", f.Name, *v)
			}
		case *time.Time:
			line += " " + f.Name + "=" + v.Format("2006-01-02T15:04:05.000Z07:00")
		}
	}
	return line
}

// reading collects the events of texts, of which each is a file.
type reading struct {
	r      *Reader
	events []string
	keys   map[string]bool // kind, at and key
	errs   []string
}

func read(t *testing.T, o Options, texts ...string) *reading {
	t.Helper()
	g := &reading{keys: map[string]bool{}}
	if o.Node == "" {
		o.Node = "here"
	}
	g.r = New(o, func(e eventlog.Event) error {
		g.events = append(g.events, told(e))
		g.keys[fmt.Sprint(e.Kind(), e.Common().At, e.Common().Key)] = true
		return nil
	})
	for i, text := range texts {
		g.r.Begin(time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), 0)
		if err := g.r.ReadAll(strings.NewReader(text), func(n int64, err error) error {
			g.errs = append(g.errs, fmt.Sprintf("%d:%d: %v", i, n, err))
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if err := g.r.Finish(); err != nil {
		t.Error(err)
	}
	return g
}

func sample(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".log")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func samples() []string { return []string{"tabard", "opensmtpd", "postfix", "postfix-rfc3339"} }

// Each sample gives the events that are written beside it (TABARD_UPDATE=1 writes them).
func TestSamples(t *testing.T) {
	for _, name := range samples() {
		g := read(t, Options{}, sample(t, name))
		for _, e := range g.errs {
			t.Errorf("%s: %s", name, e)
		}
		got, file := strings.Join(g.events, "\n")+"\n", "testdata/"+name+".events"
		if os.Getenv("TABARD_UPDATE") != "" {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || got != string(want) {
			t.Errorf("%s: %v:\n%s", name, err, got)
		}
	}
}

// Parts of a log have no event that all of it has not, wherever they begin and end, but
// for what is waited for at the end.
func TestPartsAddNothing(t *testing.T) {
	for _, name := range samples() {
		text := sample(t, name)
		all := read(t, Options{}, text)
		if len(all.keys) != len(all.events) {
			t.Errorf("%s: %d events have %d names", name, len(all.events), len(all.keys))
		}
		lines := slices.Collect(strings.Lines(text))
		for i := range lines {
			head, tail := strings.Join(lines[:i], ""), strings.Join(lines[i:], "")
			for _, parts := range [][]string{{tail}, {text, tail}} {
				for k := range read(t, Options{}, parts...).keys {
					if !all.keys[k] {
						t.Errorf("%s: cut at line %d: there is a new event %s", name, i+1, k)
					}
				}
			}
			if both := read(t, Options{}, head, tail); !slices.Equal(both.events, all.events) {
				t.Errorf("%s: cut at line %d: files in order do not read as one", name, i+1)
			}
		}
	}
}

// Lines that are the same in one second are as many events.
func TestSameLines(t *testing.T) {
	line := "Nov 28 06:30:00 mx postfix/smtpd[50]: NOQUEUE: reject: RCPT from unknown[203.0.113.66]: 554 5.7.1 no; from=<s@s.example> to=<x@x.example> proto=SMTP helo=<h>\n"
	if g := read(t, Options{}, line+line+line); len(g.keys) != 3 {
		t.Errorf("%d events", len(g.keys))
	}
	if g := read(t, Options{}, line+line, strings.Replace(line, ":00", ":01", 1), line+line); len(g.keys) != 3 {
		t.Errorf("%d events", len(g.keys))
	}
}

func TestTimes(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	const text = " mx smtpd[1]: x: y"
	for _, tt := range []struct {
		latest string
		year   int
		lines  []string
		want   string
	}{
		{"2026-12-31", 0, []string{"Nov 28 16:00:00"}, "2026-11-28T15:00:00Z"},
		{"2026-01-05", 0, []string{"Dec 30 16:00:00", "Jan  4 16:00:00"}, "2025-12-30T15:00:00Z 2026-01-04T15:00:00Z"},
		{"2026-01-05", 0, []string{"Feb 29 16:00:00"}, "2024-02-29T15:00:00Z"},
		{"2026-01-05", 2019, []string{"Dec 31 16:00:00", "Jan  1 00:00:01", "Dec 31 23:59:59", "Jul  1 00:00:00", "Dec  1 00:00:00", "Jan  2 00:00:00"},
			"2019-12-31T15:00:00Z 2019-12-31T23:00:01Z 2019-12-31T22:59:59Z 2020-06-30T23:00:00Z 2020-11-30T23:00:00Z 2021-01-01T23:00:00Z"},
		{"2026-01-05", 0, []string{"2026-11-28T16:00:00.5+01:00", "2026-11-28T16:00:00Z", "2026-11-28T16:00:00+0200", "<22>Jan  2 03:04:05"},
			"2026-11-28T15:00:00.5Z 2026-11-28T16:00:00Z 2026-11-28T14:00:00Z 2026-01-02T02:04:05Z"},
	} {
		latest, err := time.Parse("2006-01-02", tt.latest)
		if err != nil {
			t.Fatal(err)
		}
		c := clock{zone: zone, latest: latest, year: tt.year}
		var got []string
		for _, line := range tt.lines {
			l, err := c.prefix(line + text)
			if err != nil || l.host != "mx" || l.program != "smtpd" || l.pid != "1" || l.text != "x: y" {
				t.Errorf("%s: %+v, %v", line, l, err)
			}
			got = append(got, l.at.UTC().Format(time.RFC3339Nano))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%v: %s; want %s", tt.lines, s, tt.want)
		}
	}
}

// What is not understood is told, and what is another program's is passed over.
func TestNotUnderstood(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"nonsense", "no time at its begin"},
		{"Nov 28 16:00:00 mx nonsense", "no host and program"},
		{"Nov 28 16:00:00 mx sshd[5]: Accepted", "other"},
		{"Nov 31 16:00:00 mx smtpd[5]: x", "no time"},
		{"Nov 28 16:00:00 mx smtpd[5]: gibberish", "no line of OpenSMTPD"},
		{"Nov 28 16:00:00 mx smtpd[5]: 00112233aabbccdd cleans up", "nothing that smtp, mta or mda say"},
		{"Nov 28 16:00:00 mx postfix/smtpd[5]: gibberish", "smtpd says something unknown"},
		{"Nov 28 16:00:00 mx postfix/qmgr[5]: 1A2B3C4D5E: gibberish", "qmgr says something unknown"},
		{"Nov 28 16:00:00 mx postfix/smtp[5]: 1A2B3C4D5E: to=<a@b.example>, relay=none, status=odd (x)", "status=odd"},
		{`2026-11-28T12:00:00.000Z tabard/mta[1]: mta x="y`, "quotes of x do not end"},
		{`2026-11-28T12:00:00.000Z tabard/mta[1]: mta x=y z`, `"z" is no key=value`},
		{`{"time":"x"}`, "time, msg or process"},
		{"{", "no JSON"},
		{strings.Repeat("x", 2*maxLine+5), "longer than 65536 bytes"},
	} {
		g := read(t, Options{}, "\n"+tt.line+"\n2026-11-28T12:00:00.000Z tabard/mta[1]: mta x=y\n")
		if tt.want == "other" {
			if len(g.errs) != 0 || g.r.Stats() != (Stats{Lines: 3, Others: 2}) {
				t.Errorf("%s: %v %+v", tt.line, g.errs, g.r.Stats())
			}
			continue
		}
		if len(g.errs) != 1 || !strings.HasPrefix(g.errs[0], "0:2: not understood: ") || !strings.Contains(g.errs[0], tt.want) {
			t.Errorf("%s: %v", cutShort(tt.line), g.errs)
		}
	}
}

func TestForcedFormat(t *testing.T) {
	const mine = "Nov 28 16:00:00 mx out/qmgr[5]: 1A2B3C4D5E: removed\n"
	if s := read(t, Options{}, mine).r.Stats(); s.Others != 1 {
		t.Errorf("%+v", s)
	}
	g := read(t, Options{Format: Postfix}, mine+"Nov 28 16:00:00 mx smtpd[5]: 00112233aabbccdd smtp disconnected reason=quit\n")
	if s := g.r.Stats(); s != (Stats{Lines: 2, Others: 1}) || len(g.events) != 0 {
		t.Errorf("%+v %v", s, g.events)
	}
}

func TestGzip(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(sample(t, "tabard")))
	_ = z.Close()
	g := read(t, Options{}, packed.String())
	if plain := read(t, Options{}, sample(t, "tabard")); len(g.errs) > 0 || !slices.Equal(g.events, plain.events) {
		t.Errorf("%v %v", g.errs, g.events)
	}
	at := Began(bytes.NewReader(packed.Bytes()), Options{}, time.Now(), 0)
	if !at.Equal(time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)) {
		t.Error(at)
	}
	r := New(Options{}, func(eventlog.Event) error { return nil })
	err := r.ReadAll(bytes.NewReader(packed.Bytes()[:packed.Len()-100]), func(int64, error) error { return nil })
	if !errors.Is(err, ErrInput) {
		t.Errorf("cut off: %v", err)
	}
}

// An error of the store ends the reading.
func TestStoreFails(t *testing.T) {
	fault := errors.New("down")
	r := New(Options{}, func(eventlog.Event) error { return fault })
	if err := r.ReadAll(strings.NewReader(sample(t, "tabard")), func(int64, error) error { return nil }); !errors.Is(err, fault) {
		t.Error(err)
	}
}

// What is remembered of messages that never end is bounded, and their events are given
// when they are let go of.
func TestBounded(t *testing.T) {
	n := 0
	r := New(Options{}, func(eventlog.Event) error { n++; return nil })
	r.postfix.mails.max = 10
	for i := range 50 {
		for _, text := range []string{"cleanup[1]: %X: message-id=<x>", "qmgr[2]: %X: from=<a@a.example>, size=1, nrcpt=1 (queue active)"} {
			if err := r.Line("Nov 28 16:00:00 mx postfix/" + fmt.Sprintf(text, 0x100000+i)); err != nil {
				t.Error(err)
			}
		}
	}
	if n != 40 || len(r.postfix.mails.byKey) != 10 {
		t.Errorf("%d events, %d kept", n, len(r.postfix.mails.byKey))
	}
	_ = r.Finish()
	if n != 50 {
		t.Errorf("%d events", n)
	}
}

func fuzzed(f *testing.F, format Format, names ...string) {
	for _, name := range names {
		for line := range strings.Lines(sample(f, name)) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := New(Options{Format: format}, func(e eventlog.Event) error {
			if h := e.Common(); h.At.IsZero() && format != Tabard || h.Process == "" {
				t.Errorf("%+v", e)
			}
			return nil
		})
		err := r.ReadAll(strings.NewReader(text), func(int64, error) error { return nil })
		if err != nil && !errors.Is(err, ErrInput) {
			t.Error(err)
		}
		_ = r.Finish()
	})
}

func FuzzTabard(f *testing.F)    { fuzzed(f, Tabard, "tabard") }
func FuzzOpenSMTPD(f *testing.F) { fuzzed(f, OpenSMTPD, "opensmtpd") }
func FuzzPostfix(f *testing.F)   { fuzzed(f, Postfix, "postfix", "postfix-rfc3339") }

// A client that connects to the same process again has another session.
func TestSessionsAgain(t *testing.T) {
	t.Parallel()
	ids := map[string]bool{}
	r := New(Options{Node: "here"}, func(e eventlog.Event) error {
		ids[e.(*eventlog.Session).ID] = true
		return nil
	})
	r.Begin(time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), 0)
	for _, second := range []string{"01", "01", "02"} {
		for _, text := range []string{"connect from a.example[192.0.2.1]", "disconnect from a.example[192.0.2.1] quit=1 commands=1"} {
			if err := r.Line("Nov 28 16:00:" + second + " mx postfix/smtpd[7]: " + text); err != nil {
				t.Error(err)
			}
		}
	}
	if len(ids) != 3 {
		t.Errorf("three sessions have %d ids", len(ids))
	}
}
