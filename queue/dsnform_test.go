package queue_test

import (
	"bytes"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/address"
	"tabard/queue"
)

// written is a report by itself, with what its envelope says.
func written(t testing.TB, kind string, m queue.Message, e queue.Envelope, r queue.Result, body string) (report, queue.Message) {
	t.Helper()
	var buf bytes.Buffer
	sub, err := queue.WriteReport(&buf, kind, m, e, r, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return parseReport(t, buf.Bytes()), sub
}

var arrived = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func TestReportFields(t *testing.T) {
	m := queue.Message{Sender: "a@x.example", EnvID: "two  blanks", Helo: "mail.x.example", Remote: "192.0.2.9", Created: arrived}
	e := queue.Envelope{Address: `"b  c"@y.example`, Recipient: "list@z.example", ORCPT: "RFC822;list@z.example", Expires: arrived.Add(96 * time.Hour)}
	r, _ := written(t, "delayed", m, e, queue.Result{Code: 451, Enhanced: "4.7.1", Text: "greylisted\ncome back later", Remote: "192.0.2.1"}, text)
	if d := cmp.Diff(textproto.MIMEHeader{
		"Original-Envelope-Id": {"two  blanks"}, "Reporting-Mta": {"dns; mx.test.example"},
		"Received-From-Mta": {"dns; mail.x.example"}, "Arrival-Date": {"Sat, 28 Nov 2026 12:00:00 +0000"},
	}, r.message); d != "" {
		t.Error(d)
	}
	got := r.rcpts[0]
	got.Del("Last-Attempt-Date")
	if d := cmp.Diff(textproto.MIMEHeader{
		"Original-Recipient": {"RFC822; list@z.example"}, "Final-Recipient": {`rfc822; "b  c"@y.example`}, "Action": {"delayed"},
		"Status": {"4.7.1"}, "Remote-Mta": {"dns; [192.0.2.1]"}, "Diagnostic-Code": {"smtp; 451 4.7.1 greylisted come back later"},
		"Will-Retry-Until": {"Wed, 02 Dec 2026 12:00:00 +0000"},
	}, got); d != "" {
		t.Error(d)
	}
	for _, want := range []string{
		"<list@z.example>:\r\n", "policy", "192.0.2.1 said: 451 4.7.1 greylisted", "until Wed, 02 Dec 2026",
		"Sat, 28 Nov 2026 12:00:00", "has not been delivered yet", "do not send it once more",
	} {
		if !strings.Contains(strings.Join(strings.Fields(r.text), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("no %q in\n%s", want, r.text)
		}
	}
}

// A server that gave no answer did not say what we say about it.
func TestNoAnswer(t *testing.T) {
	r, _ := written(t, "failed", queue.Message{Sender: "a@x.example"}, relay("b@y.example"),
		queue.Result{Enhanced: "4.4.1", Text: "connection refused", Remote: "mx.y.example"}, text)
	if strings.Contains(r.text, "said") || !strings.Contains(r.text, "mx.y.example: 4.4.1 connection refused") ||
		r.rcpts[0].Get("Diagnostic-Code") != "x-tabard; 4.4.1 connection refused" {
		t.Errorf("%v\n%s", r.rcpts[0], r.text)
	}
}

func TestServerNames(t *testing.T) {
	for remote, want := range map[string]string{
		"mx.y.example": "dns; mx.y.example", "192.0.2.1": "dns; [192.0.2.1]", "2001:db8::1": "dns; [IPv6:2001:db8::1]",
		"127.0.0.1:24": "dns; [127.0.0.1]", "[::1]:24": "dns; [IPv6:::1]", "lmtp.example:24": "dns; lmtp.example",
		"/run/lmtp sock": "x-unix; /run/lmtp sock", "mx; evil=1": "x-tabard; mx; evil=1", "": "",
	} {
		r, _ := written(t, "failed", queue.Message{Sender: "a@x.example"}, relay("b@y.example"), queue.Result{Code: 550, Remote: remote}, text)
		if got := r.rcpts[0].Get("Remote-MTA"); got != want {
			t.Errorf("%q: %q, want %q", remote, got, want)
		}
	}
	for _, m := range []queue.Message{
		{Sender: "a@x.example", Helo: "laptop", Remote: "192.0.2.9", User: "ann"}, {Sender: "a@x.example", Helo: "localhost", Remote: "local"},
		{Sender: "a@x.example", Helo: "no name", Remote: "192.0.2.9"}, {Sender: "a@x.example", Remote: "192.0.2.9"},
	} {
		r, _ := written(t, "failed", m, relay("b@y.example"), failed, text)
		if got := r.message.Get("Received-From-MTA"); got != "" {
			t.Errorf("%+v: %q", m, got)
		}
	}
}

// The original comes back in a form that no server on the way may refuse, and
// readable.
func TestReturnedForms(t *testing.T) {
	const eightBit = "Subject: \xc3\xbc\r\n\r\n\xfcber\r\n"
	for _, tt := range []struct {
		name, sender   string
		utf8           bool
		ret, body      string
		media, content string
		eight, smtputf bool // what the report itself needs
	}{
		{"plain header", "a@x.example", false, "HDRS", text, "text/rfc822-headers", "From: a@x.example\r\nSubject: hello\r\n", false, false},
		{"plain whole", "a@x.example", false, "FULL", text, "message/rfc822", text, false, false},
		{"8-bit header", "a@x.example", false, "", eightBit, "text/rfc822-headers", "Subject: ü\r\n", false, false},
		{"8-bit whole", "a@x.example", false, "FULL", eightBit, "message/rfc822", eightBit, true, false},
		{"UTF-8 header", "a@x.example", true, "", eightBit, "message/global-headers", "Subject: ü\r\n", false, false},
		{"UTF-8 whole", "a@x.example", true, "FULL", eightBit, "message/global", eightBit, false, false},
		{"sender in UTF-8", "ü@x.example", true, "FULL", eightBit, "message/global", eightBit, true, true},
		{"no body", "a@x.example", false, "HDRS", "Subject: x\r\n", "text/rfc822-headers", "Subject: x\r\n", false, false},
		{"no end", "a@x.example", false, "FULL", "Subject: x\r\n\r\nend", "message/rfc822", "Subject: x\r\n\r\nend\r\n", false, false},
		{"no header", "a@x.example", false, "HDRS", "\r\nSubject: x\r\n", "text/rfc822-headers", "", false, false},
		{"nothing", "a@x.example", false, "FULL", "", "message/rfc822", "", false, false},
		{"bare line ends", "a@x.example", false, "FULL", "A: b\nC: d\r\r\nx\x00\r.\ry", "message/rfc822", "A: b\r\nC: d\r\n\r\nx?\r\n.\r\ny\r\n", false, false},
		{"too large", "a@x.example", false, "FULL", "Subject: x\r\n\r\n" + strings.Repeat("line\r\n", queue.MaxReturned/6), "text/rfc822-headers", "Subject: x\r\n", false, false},
	} {
		m := queue.Message{Sender: tt.sender, UTF8: tt.utf8, Ret: tt.ret}
		r, sub := written(t, "failed", m, relay("b@y.example"), failed, tt.body)
		if r.types[2] != tt.media || r.original != tt.content {
			t.Errorf("%s: %s %.200q", tt.name, r.types[2], r.original)
		}
		if sub.EightBit != tt.eight || sub.UTF8 != tt.smtputf || sub.Sender != "" {
			t.Errorf("%s: envelope %+v", tt.name, sub)
		}
		if told := strings.Contains(r.text, "too large to be sent back"); told != (tt.name == "too large") {
			t.Errorf("%s: %s", tt.name, r.text)
		}
	}
}

// Lines that are too long are cut between characters, and go on as header fields.
func TestLongLinesReturned(t *testing.T) {
	header := "Subject: " + strings.Repeat("ü", 2000)
	body := strings.Repeat("é", 3000)
	r, _ := written(t, "failed", queue.Message{Sender: "ü@x.example", UTF8: true, Ret: "FULL"}, relay("b@y.example"), failed, header+"\r\n\r\n"+body+"\r\n")
	head, rest, _ := strings.Cut(r.original, "\r\n\r\n")
	if strings.ReplaceAll(head, "\r\n ", "") != header || strings.ReplaceAll(rest, "\r\n", "") != body || !utf8.ValidString(r.original) {
		t.Errorf("%q", r.original)
	}
}

func TestReportRefersToMessage(t *testing.T) {
	for header, want := range map[string]string{
		"Message-ID: <1@x.example>\r\n": "<1@x.example>", "X: y\r\nmessage-id:<2@x>\r\n": "<2@x>", "Subject: x\r\n": "", "Message-ID: 3@x\r\n": "",
		"Message-ID: <a b@x>\r\n": "", "Message-ID: <ü@x>\r\n": "", "Message-ID: <>\r\n": "", "Message-ID: <a><b>\r\n": "",
		"Message-ID: <" + strings.Repeat("x", 300) + ">\r\n": "", "\r\nMessage-ID: <body@x.example>\r\n": "",
	} {
		r, _ := written(t, "failed", queue.Message{Sender: "a@x.example"}, relay("b@y.example"), failed, header+"\r\nbody\r\n")
		if r.header.Get("In-Reply-To") != want || r.header.Get("References") != want {
			t.Errorf("%q: %q", header, r.header)
		}
	}
}

// What people read says what is wrong, whatever the code.
func TestPlainWords(t *testing.T) {
	for code, want := range map[string]string{
		"5.1.1": "no such mailbox", "4.2.2": "mailbox is full", "5.3.4": "too large", "4.4.1": "does not answer", "5.7.26": "by its policy",
		"5.1.99": "address is refused", "5.9.9": "refuses the message", "5.6.7": "does not support addresses", "4.4.6": "in circles",
	} {
		r, _ := written(t, "failed", queue.Message{Sender: "a@x.example"}, relay("b@y.example"), queue.Result{Enhanced: code, Code: 550}, text)
		if !strings.Contains(r.text, want) {
			t.Errorf("%s: no %q in\n%s", code, want, r.text)
		}
	}
}

// FuzzReport lets a server, a sender and whoever named the recipient say anything:
// the report has its parts, fields and recipient, and no more.
func FuzzReport(f *testing.F) {
	f.Add("no such user", "5.1.1", "mx.y.example", "rfc822;b@y.example", "id", "a@x.example", "b@y.example", text, 550, true, false)
	f.Add("\r\n--x\r\nSubject: x\r\n\r\n", "5.1.1\r\n", "mx\r\nX: y", "utf-8;ü\r\nAction: delivered", "\r\n", "ü@x.example", "ü\n@y", "\n\r\x00--\r", 999, false, true)
	f.Add(strings.Repeat("é\u2028\x1b", 900), "", "/run/sock", ";;", " ", "", "", strings.Repeat("ü", 3000), -1, true, true)
	f.Fuzz(func(t *testing.T, said, enhanced, remote, orcpt, envID, sender, rcpt, body string, code int, full, smtputf8 bool) {
		// What the queue checks before it takes a message.
		for _, s := range []string{orcpt, envID, sender, rcpt} {
			if address.OneLine(s, len(s)+4) != s || len(s) > 500 {
				return
			}
		}
		m := queue.Message{Sender: sender, EnvID: envID, UTF8: smtputf8, Helo: remote, Remote: "192.0.2.1"}
		if full {
			m.Ret = "FULL"
		}
		e := queue.Envelope{Address: rcpt, Recipient: rcpt, ORCPT: orcpt}
		r, sub := written(t, "failed", m, e, queue.Result{Code: code, Enhanced: enhanced, Text: said, Remote: remote}, body)
		if len(r.types) != 3 || len(r.rcpts) != 1 || r.rcpts[0].Get("Action") != "failed" || len(r.rcpts[0]["Action"]) != 1 {
			t.Fatalf("%+v", r)
		}
		for _, one := range []string{"Subject", "From", "To", "Auto-Submitted", "Message-Id", "Content-Type", "Mime-Version", "Date"} {
			if len(r.header[one]) != 1 {
				t.Errorf("%s: %q", one, r.header[one])
			}
		}
		allowed := []string{"Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-Mta", "Diagnostic-Code", "Last-Attempt-Date"}
		for name, values := range r.rcpts[0] {
			if len(values) != 1 || !slices.Contains(allowed, name) {
				t.Errorf("%s: %q", name, values)
			}
		}
		if sub.UTF8 && address.ASCII(sender) {
			t.Error("needs SMTPUTF8")
		}
	})
}
