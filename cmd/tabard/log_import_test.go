package main

import (
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Text logs come into the event log, twice as well as once, and can be asked.
func TestLogImport(t *testing.T) {
	t.Parallel()
	conf, _ := eventConfig(t)
	dir := t.TempDir()
	const begin = `Nov 28 06:26:10 mx postfix/smtpd[901]: connect from mail.a.example[192.0.2.10]
Nov 28 06:26:10 mx postfix/smtpd[901]: 1A2B3C4D5E: client=mail.a.example[192.0.2.10]
Nov 28 06:26:10 mx postfix/cleanup[905]: 1A2B3C4D5E: message-id=<m@a.example>
Nov 28 06:26:11 mx postfix/qmgr[815]: 1A2B3C4D5E: from=<ann@a.example>, size=1543, nrcpt=1 (queue active)
`
	const end = `Nov 28 06:26:12 mx postfix/smtp[908]: 1A2B3C4D5E: to=<carl@c.example>, relay=mx.c.example[198.51.100.7]:25, delay=1.2, delays=0.2/0/0.5/0.5, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 77F)
Nov 28 06:26:12 mx postfix/smtpd[901]: disconnect from mail.a.example[192.0.2.10] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5
Nov 28 06:26:12 mx postfix/qmgr[815]: 1A2B3C4D5E: removed
Nov 28 06:26:13 mx sshd[1]: Accepted publickey
Nov 28 06:26:13 mx postfix/qmgr[815]: 1A2B3C4D5E: gibberish
`
	old := filepath.Join(dir, "mail.log.1.gz")
	file, err := os.Create(old)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(file)
	_, _ = z.Write([]byte(begin))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "mail.log")
	if err := os.WriteFile(log, []byte(end), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{log, old} {
		when := time.Date(2026, 11, 28, 7, 0, 0, 0, time.UTC)
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	unknown := log + ":5: not understood: qmgr says something unknown\n"
	for _, tt := range []struct {
		stdin, args string
		code        int
		want        string
	}{
		{"", "--timezone UTC " + log + " " + old, 0, unknown + "9 lines, 5 events, 5 of them added; 1 lines are of other programs; 1 lines are not understood\n"},
		{"", "--timezone UTC " + log + " " + old, 0, unknown + "9 lines, 5 events, 0 of them added; 1 lines are of other programs; 1 lines are not understood\n"},
		{"", "--timezone UTC --strict " + log, exDataErr, unknown + "5 lines, 3 events, 0 of them added; 1 lines are of other programs; 1 lines are not understood\ntabard: 1 lines are not understood\n"},
		{begin, "--timezone UTC --year 2026 -", 0, "4 lines, 1 events, 0 of them added\n"},
		{"x\n", "--json -", 0, "-:1: not understood: no time at its begin\n{\n  \"lines\": 1,\n  \"events\": 0,\n  \"added\": 0,\n  \"other_lines\": 0,\n  \"unknown_lines\": 1\n}\n"},
		{"\x1f\x8bx", "-", exDataErr, "0 lines, 0 events, 0 of them added\ntabard: -: cannot be read: unexpected EOF\n"},
		{"", "--format sendmail -", exUsage, "tabard: --format sendmail: want tabard, opensmtpd or postfix\n"},
		{"", "--timezone Mars -", exUsage, "tabard: --timezone Mars: there is no such zone\n"},
		{"", "--year 12 -", exUsage, "tabard: --year 12: want 1980 to 9999\n"},
		{"", dir + "/nothing", exNoInput, "tabard: open " + dir + "/nothing: no such file or directory\n"},
	} {
		out, code := tool(t, tt.stdin, append([]string{"-c", conf, "log", "import"}, strings.Fields(tt.args)...)...)
		if code != tt.code || out != tt.want {
			t.Errorf("%s: %d\n%swant %d\n%s", tt.args, code, out, tt.code, tt.want)
		}
	}
	out, _ := tool(t, "", "-c", conf, "log", "1A2B3C4D5E")
	for _, want := range []string{
		"06:26:11.000Z message  1A2B3C4D5E from=<ann@a.example> size=1543 recipients=1 client=192.0.2.10 session=",
		"Z envelope 1A2B3C4D5E from=<ann@a.example> to=<carl@c.example> action=smtp\n",
		"Z attempt  1A2B3C4D5E ok from=<ann@a.example> to=<carl@c.example> via mx.c.example[198.51.100.7] took 1s delay=1.2s 250 2.0.0 Ok: queued as 77F\n",
		"Z result   1A2B3C4D5E relayed from=<ann@a.example>",
		"messages=1 after 2s: quit\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// Standard input that is a file has its time as a file has; a broken file does not keep
// what comes before its fault, or other files, from being stored.
func TestLogImportInput(t *testing.T) {
	t.Parallel()
	conf, _ := eventConfig(t)
	dir := t.TempDir()
	const reject = "Nov 28 06:26:10 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from a.example[192.0.2.1]: 550 5.1.1 <b@b.example>: Recipient address rejected; from=<a@a.example> to=<b@b.example> proto=ESMTP helo=<a.example>\n"
	old := filepath.Join(dir, "old.log")
	if err := os.WriteFile(old, []byte(reject), 0o600); err != nil {
		t.Fatal(err)
	}
	when := time.Date(2019, 12, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(old, when, when); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(old)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out strings.Builder
	if code := execute([]string{"-c", conf, "log", "import", "--timezone", "UTC", "-"}, file, &out, &out); code != 0 || !strings.Contains(out.String(), "1 of them added") {
		t.Errorf("%d %s", code, out.String())
	}
	if out, _ := tool(t, "", "-c", conf, "log", "b@b.example"); !strings.HasPrefix(out, "2019-11-28T06:26:10.000Z result ") {
		t.Error(out)
	}

	var packed strings.Builder
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(strings.Replace(reject, "28", "27", 1) + strings.Repeat("Nov 27 06:26:11 mx sshd[1]: x\n", 10_000)))
	_ = z.Close()
	broken := filepath.Join(dir, "broken.gz")
	if err := os.WriteFile(broken, []byte(packed.String()[:packed.Len()-20]), 0o600); err != nil {
		t.Fatal(err)
	}
	said, code := tool(t, "", "-c", conf, "log", "import", "--timezone", "UTC", broken, old)
	if code != exDataErr || !strings.Contains(said, " 2 events, 1 of them added;") || !strings.Contains(said, "tabard: "+broken+": cannot be read after line ") {
		t.Errorf("%d %s", code, said)
	}
}
