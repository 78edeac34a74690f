package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tabard/backends/eventdb"
	"tabard/internal/eventlog"
)

// eventConfig writes a configuration with an event log, makes its database, and
// returns both.
func eventConfig(t *testing.T) (conf, db string) {
	t.Helper()
	dir := t.TempDir()
	conf, db = filepath.Join(dir, "tabard.conf"), filepath.Join(dir, "log.db")
	text := "table log \"sqlite:" + db + "\"\nlog sql <log> keep 30d\nqueue \"sqlite:" + dir + "/queue.db\"\nmatch from any for any reject\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := tool(t, "", "-c", conf, "migrate")
	if code != 0 || !strings.Contains(out, "event log: "+db+": version 2, was 0\n") {
		t.Fatalf("migrate: %d %s", code, out)
	}
	return conf, db
}

// tool runs a command in this process, and returns what it says and its exit code.
func tool(t *testing.T, stdin string, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	code := execute(args, strings.NewReader(stdin), &out, &out)
	return out.String(), code
}

func TestLog(t *testing.T) {
	t.Parallel()
	conf, path := eventConfig(t)
	db := eventdb.New(eventdb.Source{Path: path})
	t.Cleanup(func() { _ = db.Close() })
	began := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	head := func(ms int) eventlog.Head {
		return eventlog.Head{At: began.Add(time.Duration(ms) * time.Millisecond), Key: int64(ms), Node: "mx", Process: "queue"}
	}
	party := eventlog.Party{Session: "8f00000000000001", Message: "00000000000000a1", Envelope: "00000000000000a1.0", Sender: "a@a.example", Recipient: "info@b.example", Address: "bob@b.example", Domain: "b.example"}
	if err := db.Write(t.Context(), &eventlog.Batch{
		Sessions:  []eventlog.Session{{Head: head(90), ID: party.Session, Direction: eventlog.In, Listener: "0.0.0.0:25", Peer: "192.0.2.1", Name: "mx.a.example", Helo: "mx.a.example", TLS: "TLSv1.3:X", Verdict: "verified", Began: began, Messages: 1, Reason: "quit"}},
		Messages:  []eventlog.Message{{Head: head(10), ID: party.Message, Session: party.Session, Sender: party.Sender, Domain: "a.example", Size: 1000, Recipients: 1, HeaderID: "m@a.example", Protocol: "ESMTPS", Peer: "192.0.2.1"}},
		Envelopes: []eventlog.Envelope{{Head: head(20), Party: party, Action: "out"}},
		Attempts:  []eventlog.Attempt{{Head: head(1500), Party: party, Host: "mx.b.example", Peer: "192.0.2.2", TLSWanted: "may", TLSHad: "encrypt", Outcome: eventlog.Temp, Code: 451, Status: "4.2.1", Text: "4.2.1 Greylisted", DurationMS: 40, DelayMS: 1480}},
		Results:   []eventlog.Result{{Head: head(90), Party: eventlog.Party{Session: party.Session}, Result: eventlog.Rejected, Code: 535, Status: "5.7.8", Text: "Authentication failed: joe"}},
		Losses:    []eventlog.Loss{{Head: head(2000), Since: began, Until: began, Count: 3, Reason: "down"}},
	}); err != nil {
		t.Fatal(err)
	}
	const want = `2026-11-28T12:00:00.010Z message  00000000000000a1 from=<a@a.example> size=1000 recipients=1 proto=ESMTPS client=192.0.2.1 session=8f00000000000001 message-id=<m@a.example>
2026-11-28T12:00:00.020Z envelope 00000000000000a1.0 from=<a@a.example> to=<bob@b.example> for=<info@b.example> action=out
2026-11-28T12:00:00.090Z result   8f00000000000001 rejected from=<> 535 5.7.8 Authentication failed: joe
2026-11-28T12:00:00.090Z session  8f00000000000001 from mx.a.example[192.0.2.1] listener=0.0.0.0:25 helo=mx.a.example tls=TLSv1.3:X verified messages=1 after 90ms: quit
2026-11-28T12:00:01.500Z attempt  00000000000000a1.0 temp from=<a@a.example> to=<bob@b.example> for=<info@b.example> via mx.b.example[192.0.2.2] tls=encrypt wanted=may took 40ms delay=1.48s 451 4.2.1 Greylisted
2026-11-28T12:00:02.000Z loss     3 events of queue on mx lost between 2026-11-28T12:00:00Z and 2026-11-28T12:00:00Z: down
`
	lines := strings.SplitAfter(want, "\n")
	for _, tt := range []struct{ args, want string }{
		{"", want},
		{"-n 1", lines[5]},
		{"info@b.example", lines[0] + lines[1] + lines[4]},
		{"<BOB@b.example>", lines[0] + lines[1] + lines[4]},
		{"b.example", lines[0] + lines[1] + lines[4]},
		{"mx.b.example", lines[4]}, // no domain of an address, but a text
		{"00000000000000A1.0:", lines[0] + lines[1] + lines[3] + lines[4]},
		{"@B.example", lines[0] + lines[1] + lines[4]},
		{"00000000000000a1", strings.Join(lines[:5], "")},
		{"<m@a.example> --kind session", lines[3]},
		{"greylisted", lines[4]},
		{"--result temp", lines[4]},
		{"--since 2026-11-28T13:00:01+01:00 --until 2026-11-28T12:00:02Z", lines[4]},
		{"a@a.example greylisted", lines[4]},
		{"a@a.example nothing", "tabard: no such events\n"},
		{"joe", lines[2]},
		{"--trace= --id=", "tabard: --id is empty, and says nothing\n"},
		{"--kind=", "tabard: --kind is empty, and says nothing\n"},
		{"--since=", "tabard: --since is empty, and says nothing\n"},
		{"--kind nonsense", "tabard: --kind nonsense: want session, message, envelope, attempt, result, trace or loss\n"},
		{"--since tuesday", "tabard: --since: \"tuesday\"; want a span before now such as 30m, 2h or 7d, today, yesterday, or a time such as 14:30, 2026-11-28 or \"2026-11-28 14:30\"\n"},
		{"--since 1h --until 2h", "tabard: --until 2h is not after --since 1h\n"},
		{"--follow --until 2h", "tabard: --follow does not end, so there can be no --until\n"},
		{"a@a.example b@b.example", "tabard: a@a.example and b@b.example: there can be one address only\n"},
	} {
		if out, _ := tool(t, "", append([]string{"-c", conf, "log"}, strings.Fields(tt.args)...)...); out != tt.want {
			t.Errorf("log %s:\n%swant\n%s", tt.args, out, tt.want)
		}
	}
	out, _ := tool(t, "", "-c", conf, "--json", "log", "--kind", "loss")
	if out != `{"kind":"loss","at":"2026-11-28T12:00:02.000Z","node":"mx","process":"queue","since":"2026-11-28T12:00:00.000Z","until":"2026-11-28T12:00:00.000Z","count":3,"reason":"down"}`+"\n" {
		t.Errorf("%s", out)
	}
	out, _ = tool(t, "", "-c", conf, "log", "--trace", "00000000000000a1")
	if !regexp.MustCompile(`(?s)^2026-11-28T12:00:00.010Z\n +\+0.000s message .* \+1.490s attempt `).MatchString(out) {
		t.Errorf("%s", out)
	}
}

// What there is no event log for, and for which table there can be none.
func TestNoEventLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := filepath.Join(dir, "tabard.conf")
	for text, want := range map[string]string{
		"match for any reject\n": "there is no event log",
		"table t sqlite:" + dir + "/q.conf\nlog sql <t>\nmatch for any reject\n": "needs a table on SQLite or PostgreSQL with Tabard's own schema",
	} {
		for file, text := range map[string]string{conf: text, dir + "/q.conf": "dbpath /x.db\nquery_domain SELECT ?\n"} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if out, code := tool(t, "", "-c", conf, "log"); code != exConfig || !strings.Contains(out, want) {
			t.Errorf("%d %s", code, out)
		}
	}
}
