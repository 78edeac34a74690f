package smtpd

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"tabard/internal/config"
	"tabard/lookup"
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

func TestCapabilities(t *testing.T) {
	tests := []struct {
		name    string
		options []option
		want    []string
		not     []string
	}{
		{"plain", nil, []string{
			"250-mx.example.org Hello client.example [127.0.0.1], pleased to meet you", "250-PIPELINING", "250-8BITMIME",
			"250-ENHANCEDSTATUSCODES", "250-CHUNKING", "250-SMTPUTF8", "250-DSN", "250-SIZE 36700160",
			"250 LIMITS RCPTMAX=1000 MAILMAX=100",
		}, []string{"STARTTLS", "AUTH"}},
		{"no-dsn", []option{onListener(func(l *Listener) { l.NoDSN = true })}, nil, []string{"DSN"}},
		{"tls", []option{withTLS(config.TLSStart), withAuth(config.AuthOptional)}, []string{"250-STARTTLS"}, []string{"AUTH"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, tt.options...).dial()
			c.expect("220 mx.example.org ESMTP Tabard\r\n")
			lines := strings.Split(c.do("EHLO client.example", "250"), "\r\n")
			for _, w := range tt.want {
				if !strings.Contains("\n"+strings.Join(lines, "\n")+"\n", "\n"+w+"\n") {
					t.Errorf("%q lacks %q", lines, w)
				}
			}
			for _, n := range tt.not {
				if strings.Contains(strings.Join(lines, "\n"), n) {
					t.Errorf("%q has %q", lines, n)
				}
			}
		})
	}
}

// turn is one command and what its reply begins with.
type turn struct{ send, want string }

func TestDialogues(t *testing.T) {
	hello := turn{"EHLO client.example", "250"}
	mail := turn{"MAIL FROM:<a@client.example>", "250 2.1.0 Ok"}
	rcpt := turn{"RCPT TO:<b@example.org>", "250 2.1.5 Destination address valid: Recipient ok"}
	tests := []struct {
		name  string
		turns []turn
	}{
		{"HELO", []turn{{"HELO client.example", "250 mx.example.org Hello client.example [127.0.0.1]"}, mail}},
		{"HELO without a name", []turn{{"HELO", "501 5.5.4"}, {"EHLO ", "501 5.5.4"}, {"MAIL FROM:<a@b.c>", "503"}}},
		{"HELO too long", []turn{{"EHLO " + strings.Repeat("x", 256), "501"}}},
		{"lower case", []turn{{"ehlo x", "250"}, {"mail from:<a@b.example>", "250"}, {"rcpt to:<b@c.example>", "250"}, {"data", "354"}}},
		{"too early", []turn{{"MAIL FROM:<a@b.c>", "503 5.5.1"}, {"RCPT TO:<a@b.c>", "503"}, {"DATA", "503"}, {"AUTH PLAIN", "503"}}},
		{"no MAIL", []turn{hello, {"RCPT TO:<a@b.c>", "503 5.5.1"}, {"DATA", "503 5.5.1"}, {"BDAT 0", "503 5.5.1"}}},
		{"no RCPT", []turn{hello, mail, {"DATA", "503 5.5.1 Need RCPT"}, {"BDAT 0", "503"}, rcpt, {"DATA", "354"}}},
		{"nested MAIL", []turn{hello, mail, {"MAIL FROM:<c@d.e>", "503 5.5.1 Nested"}, {"RSET", "250 2.0.0 Reset state"}, mail}},
		{"EHLO resets", []turn{hello, mail, rcpt, hello, {"DATA", "503"}, mail}},
		{"unknown", []turn{hello, {"FOO", "500 5.5.1"}, {"ETRN x", "500"}, {"XCLIENT a=b", "500"}, {"", "500"}, {"x", "500"}, {"NOOP", "250 2.0.0 Ok"}}},
		{"minor", []turn{{"NOOP hello", "250"}, {"VRFY root", "252"}, {"EXPN x", "502"}, {"HELP", "214"}, {"RSET x", "250"}}},
		{"null sender", []turn{hello, {"MAIL FROM:<>", "250"}, rcpt, {"DATA", "354"}}},
		{"source route", []turn{hello, {"MAIL FROM:<@x.example,@y.example:a@b.example>", "250"}}},
		{"blanks", []turn{hello, {"MAIL FROM: <a@b.example>", "250"}, {"RCPT TO: <a@b.example> ", "250"}}},
		{"bad senders", []turn{
			hello, {"MAIL FROM:<a>", "501"}, {"MAIL FROM:<;cmd;>", "501"}, {"MAIL FROM:<a b@c.d>", "501"}, {"MAIL FROM:<a@b..c>", "553 5.1.7"},
			{"MAIL FROM:<a@-b.c>", "553"}, {"MAIL FROM:<a@b", "501"}, {"MAIL TO:<a@b.c>", "501"}, {"MAIL", "501"},
			{"MAIL FROM:<" + strings.Repeat("x", 241) + "@b.c>", "553"}, {"MAIL FROM:<" + strings.Repeat("x", 240) + "@b.c>", "250"}, {"RSET", "250"}, {"MAIL FROM:<a@[1.2.3]>", "553"}, mail,
		}},
		{"bad recipients", []turn{
			hello, mail, {"RCPT TO:<>", "501"}, {"RCPT TO:<a>", "501"}, {"RCPT TO:<a@b_;c>", "553 5.1.3"}, {"RCPT TO:<\"a\x01\"@b.c>", "500 5.5.2"},
			{"DATA", "554 5.5.1 No valid recipients"}, rcpt,
		}},
		{"postmaster", []turn{hello, mail, {"RCPT TO:<Postmaster>", "250"}, {"RCPT TO:<postmaster> NOTIFY=NEVER", "250"}}},
		{"quoted", []turn{hello, {`MAIL FROM:<"a b"@c.example>`, "250"}, {`RCPT TO:<"x@y"@c.example>`, "250"}}},
		{"UTF-8 without SMTPUTF8", []turn{hello, {"MAIL FROM:<dörte@b.example>", "553 5.6.7"}, mail, {"RCPT TO:<a@bücher.example>", "553 5.6.7"}}},
		{"UTF-8", []turn{hello, {"MAIL FROM:<dörte@b.example> SMTPUTF8", "250"}, {"RCPT TO:<a@bücher.example>", "250"}}},
		{"not UTF-8", []turn{hello, {"MAIL FROM:<\xff@b.example> SMTPUTF8", "553"}}},
		{"parameters", []turn{
			hello, {"MAIL FROM:<a@b.c> FOO=1", "555 5.5.4"}, {"MAIL FROM:<a@b.c> BODY=BINARYMIME", "504"}, {"MAIL FROM:<a@b.c> BODY=x", "501"},
			{"MAIL FROM:<a@b.c> SIZE=x", "501"}, {"MAIL FROM:<a@b.c> SIZE=36700161", "552 5.3.4"}, {"MAIL FROM:<a@b.c> RET=x", "501"},
			{"MAIL FROM:<a@b.c> ENVID=+ZZ", "501"}, {"MAIL FROM:<a@b.c> AUTH=+", "501 5.5.4"}, {"MAIL FROM:<a@b.c> A=B=C", "501"},
			{"MAIL FROM:<a@b.c> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x AUTH=<>", "250"},
			{"RCPT TO:<a@b.c> NOTIFY=NEVER,FAILURE", "501"}, {"RCPT TO:<a@b.c> NOTIFY=", "501"}, {"RCPT TO:<a@b.c> ORCPT=x", "501"},
			{"RCPT TO:<a@b.c> ORCPT=rfc822;a+0Ab@c", "501"}, {"RCPT TO:<a@b.c> ORCPT=utf-8;\\x{07}b@c", "501"},
			{"RCPT TO:<a@b.c> FOO", "555"}, {"RCPT TO:<a@b.c> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x@y.example", "250"},
		}},
		{"DATA with arguments", []turn{hello, mail, rcpt, {"DATA x", "501"}}},
		{"controls", []turn{{"EHLO a\rb", "500 5.5.2"}, {"EHLO a\x00b", "500 5.5.2"}, {"EHLO a\x1bb", "500"}, {"EH\tLO x", "500"}, hello}},
		{"no TLS", []turn{hello, {"STARTTLS", "502 5.5.1"}}},
		{"no AUTH", []turn{hello, {"AUTH PLAIN AGEAYg==", "503 5.5.1"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t).dial()
			c.expect("220")
			for _, turn := range tt.turns {
				c.do(turn.send, turn.want)
			}
		})
	}
}

// TestPipelining sends a whole session in one piece, as a client that knows the
// server may, and reads every reply.
func TestPipelining(t *testing.T) {
	r := start(t)
	c := r.dial()
	one := "MAIL FROM:<a@b.example>\r\nRCPT TO:<x@c.example>\r\nRCPT TO:<y@c.example>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"
	c.write("EHLO x\r\n" + strings.Repeat(one, 3) + "QUIT\r\n")
	c.expect("220")
	c.expect("250")
	for range 3 {
		for _, want := range []string{"250 2.1.0", "250 2.1.5", "250 2.1.5", "354", "250 2.0.0"} {
			c.expect(want)
		}
	}
	c.expect("221")
	c.gone()
	if n := len(r.queue.all()); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

// TestHalfClosed: a client that sends everything and shuts its side down gets
// every answer.
func TestHalfClosed(t *testing.T) {
	r := start(t)
	c := r.dial()
	c.write("HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@c.example>\r\nDATA\r\nx\r\n.\r\nNOOP\r\nNOO")
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"220", "250", "250", "250", "354", "250", "250 2.0.0 Ok"} {
		c.expect(want)
	}
	c.gone()
	r.only()
}

// TestOneByteAtATime: nothing depends on how the network cuts the stream.
func TestOneByteAtATime(t *testing.T) {
	r := start(t)
	c := r.dial()
	for _, b := range []byte("EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@c.example>\r\nDATA\r\n..\r\n.\r\nBDAT 1\r\nQUIT\r\n") {
		c.write(string(b))
	}
	// The chunk of the refused BDAT is the Q of QUIT.
	for _, want := range []string{"220", "250", "250", "250", "354", "250", "503", "500 5.5.1"} {
		c.expect(want)
	}
	if got := r.only().content(); got != "\r\n.\r\n" {
		t.Errorf("stored %q", got)
	}
}

// TestBareLFCommands: a person at a terminal may end commands with LF; message
// data keeps its rule.
func TestBareLFCommands(t *testing.T) {
	r := start(t)
	c := r.dial()
	c.expect("220")
	c.write("EHLO x\nMAIL FROM:<a@b.example>\nRCPT TO:<x@c.example>\nDATA\n")
	for _, want := range []string{"250", "250", "250", "354"} {
		c.expect(want)
	}
	c.write("x\n.\nQUIT\n")
	c.expect("554 5.6.0 Bare LF")
	c.gone()
	if n := len(r.queue.all()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestRecipientAnswers(t *testing.T) {
	r := start(t, onLookup(func(f *fakeLookup) {
		f.recipient = func(q lookup.RecipientRequest) (lookup.RecipientReply, error) {
			ok := lookup.RecipientReply{Targets: []lookup.Target{{Action: "local", Address: "b@example.org", User: "b"}}}
			switch local, _, _ := strings.Cut(q.Recipient, "@"); local {
			case "unknown":
				return lookup.RecipientReply{Code: 550, Enhanced: "5.1.1", Text: "Invalid recipient: <" + q.Recipient + ">\r\n250 lie"}, nil
			case "later":
				return lookup.RecipientReply{Code: 450, Enhanced: "nonsense", Text: "Try later"}, nil
			case "broken":
				return lookup.RecipientReply{}, errors.New("database is down\r\n250 lie")
			case "empty":
				return lookup.RecipientReply{}, nil
			case "odd":
				return lookup.RecipientReply{Code: 250, Text: "what"}, nil
			case "list":
				ok.Targets = append(ok.Targets, lookup.Target{Action: "out", Relay: true, Address: "c@else.example"})
			}
			return ok, nil
		}
	}))
	c := r.hello()
	c.do("MAIL FROM:<a@client.example>", "250")
	c.do("RCPT TO:<unknown@example.org>", "550 5.1.1 Invalid recipient: <unknown@example.org> 250 lie\r\n")
	c.do("RCPT TO:<later@example.org>", "450 4.0.0 Try later")
	c.do("RCPT TO:<broken@example.org>", "451 4.3.0 Temporary failure: <broken@example.org>")
	c.do("RCPT TO:<empty@example.org>", "451 4.3.0")
	c.do("RCPT TO:<odd@example.org>", "451 4.3.0")
	c.do("DATA", "554 5.5.1")
	c.do("RCPT TO:<b@example.org>", "250")
	c.do("RCPT TO:<list@example.org> ORCPT=rfc822;o@p.example NOTIFY=FAILURE,DELAY", "250")
	c.do("RCPT TO:<list@example.org> ORCPT=rfc822;o@p.example NOTIFY=FAILURE,DELAY", "250")
	c.do("RCPT TO:<again@example.org>", "250")
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	var got []string
	for _, e := range r.only().Recipients {
		got = append(got, fmt.Sprint(e.ID.N, e.Address, e.Recipient, e.Action, e.Relay, e.User, e.ORCPT, e.Notify))
	}
	want := []string{
		fmt.Sprint(0, "b@example.org", "b@example.org", "local", false, "b", "", ""),
		fmt.Sprint(1, "b@example.org", "list@example.org", "local", false, "b", "rfc822;o@p.example", "FAILURE,DELAY"),
		fmt.Sprint(2, "c@else.example", "list@example.org", "out", true, "", "rfc822;o@p.example", "FAILURE,DELAY"),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("envelopes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if log := r.log.String(); !strings.Contains(log, `error="database is down\r\n250 lie"`) || strings.Contains(log, "\n250 lie") {
		t.Errorf("log: %s", log)
	}
}

func TestEnvelopeOptions(t *testing.T) {
	r := start(t)
	c := r.hello()
	c.do("MAIL FROM:<dörte@b.example> SMTPUTF8 BODY=8BITMIME RET=FULL ENVID=id+2B1", "250")
	c.do(`RCPT TO:<"x y"@c.example>`, "250")
	c.do("RCPT TO:<postmaster>", "250")
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	m := r.only()
	g := m.Message
	if g.Sender != "dörte@b.example" || !g.UTF8 || !g.EightBit || g.Ret != "FULL" || g.EnvID != "id+1" || g.Helo != "client.example" || g.Remote != "127.0.0.1" {
		t.Errorf("message %+v", g)
	}
	if a, b := m.Recipients[0].Recipient, m.Recipients[1].Recipient; a != `"x y"@c.example` || b != "postmaster@mx.example.org" {
		t.Errorf("recipients %q, %q", a, b)
	}
	if len(g.Session) != 16 || r.lookup.sessions[0].ID != g.Session || r.lookup.sessions[0].RDNS != "localhost" {
		t.Errorf("session %q, facts %+v", g.Session, r.lookup.sessions[0])
	}
}
