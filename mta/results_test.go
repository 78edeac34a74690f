package mta

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

var plainRelay = lookup.RelayURL{Scheme: lookup.SchemeSMTP, Host: "192.0.2.3", Port: "25"}

// relayWorld has one server that everything is relayed to in clear.
func relayWorld(t testing.TB, adjust ...func(*Config)) (*world, *peer) {
	w, p := newWorld(t, adjust...), newPeer(t)
	w.at("192.0.2.3:25", p.start()).relay(plainRelay)
	return w, p
}

func impatient(c *Config) {
	const short = 300 * time.Millisecond
	c.Timeouts = Timeouts{Connect: short, Greeting: short, Command: short, Data: short, Block: short, End: short, Quit: short}
}

// hang waits for us to give up.
func hang(c *peerConn) { _, _ = io.Copy(io.Discard, c.in) }

func TestReplyKept(t *testing.T) {
	w, p := relayWorld(t)
	p.on("RCPT", say("550-5.1.1 no such\r\n550-5.1.1 user\r\n550 5.1.1 here"))
	r := w.start().one("x@example.org")
	if r.Code != 550 || r.Enhanced != "5.1.1" || r.Text != "no such\nuser\nhere" || r.Remote != "192.0.2.3" {
		t.Errorf("result %+v", r)
	}
	p.on("RCPT", say("550 4.1.1 liar"))
	if r := w.one("x@example.org"); r.Code != 550 || r.Enhanced != "" || r.Text != "4.1.1 liar" {
		t.Errorf("enhanced code of another class: %+v", r)
	}
	p.on("RCPT", nil)
	if r := w.one("x@example.org"); r.Outcome != queue.Delivered || r.Code != 250 || r.Enhanced != "2.0.0" || r.Text != "taken" {
		t.Errorf("result %+v", r)
	}
}

func TestResultPerRecipient(t *testing.T) {
	w, p := relayWorld(t)
	p.on("RCPT", func(c *peerConn, line string) (string, bool) {
		switch {
		case strings.Contains(line, "bad"):
			return "550 5.1.1 unknown", true
		case strings.Contains(line, "full"):
			return "452 4.2.2 mailbox full", true
		case strings.Contains(line, "moved"):
			return "251 2.1.5 will forward", true
		}
		return "250 2.1.5 ok", true
	})
	res := w.start().deliver(job(1, "good@example.org", "bad@example.org", "full@example.org", "moved@example.org"))
	wantResult(t, res[0], queue.Delivered, 250)
	wantResult(t, res[1], queue.Failed, 550, "5.1.1")
	wantResult(t, res[2], queue.Deferred, 452, "4.2.2")
	wantResult(t, res[3], queue.Delivered, 250)
	p.on(".", say("554 5.6.0 spam"))
	res = w.deliver(job(2, "good@example.org", "full@example.org"))
	wantResult(t, res[0], queue.Failed, 554, "spam")
	wantResult(t, res[1], queue.Deferred, 452)
	// After a no to DATA itself the transaction is still open: it is reset.
	p.on(".", nil).on("DATA", say("554 5.7.1 no data"))
	res = w.deliver(job(3, "good@example.org", "bad@example.org"))
	wantResult(t, res[0], queue.Failed, 554, "no data")
	wantResult(t, res[1], queue.Failed, 550)
	p.on("DATA", nil)
	wantResult(t, w.one("good@example.org"), queue.Delivered, 250)
	if n := p.connections(); n != 1 || !strings.Contains(p.said(), "RSET") {
		t.Errorf("%d connections; dialogue:\n%s", n, p.said())
	}
}

func TestConnectionLostAfterSomeRecipients(t *testing.T) {
	w, p := relayWorld(t)
	p.on("RCPT", func(c *peerConn, line string) (string, bool) {
		if strings.Contains(line, "bad") {
			return "550 5.1.1 unknown", true
		}
		return "250 ok", !strings.Contains(line, "last")
	})
	res := w.start().deliver(job(1, "a@example.org", "bad@example.org", "last@example.org", "more@example.org"))
	// Closed or, as commands were on their way still, reset.
	wantResult(t, res[0], queue.Deferred, 0, "RCPT: ")
	wantResult(t, res[1], queue.Failed, 550)
	wantResult(t, res[2], queue.Deferred, 0, "RCPT: ")
	wantResult(t, res[3], queue.Deferred, 0, "RCPT: ")
}

func TestManyRecipients(t *testing.T) {
	w, p := relayWorld(t, func(c *Config) { c.Limits.Recipients = 4 })
	n := 0
	p.on("MAIL", func(*peerConn, string) (string, bool) { n = 0; return "250 ok", true })
	p.on("RCPT", func(c *peerConn, line string) (string, bool) {
		if n++; n > 3 {
			return "452 4.5.3 too many recipients", true
		}
		c.cur.to = append(c.cur.to, line)
		return "250 ok", true
	})
	var to []string
	for i := range 10 {
		to = append(to, fmt.Sprintf("r%d@example.org", i))
	}
	for i, res := range w.start().deliver(job(1, to...)) {
		if res.Outcome != queue.Delivered {
			t.Errorf("%s: %s", to[i], stat(res))
		}
	}
	count := 0
	for _, m := range p.got() {
		count += len(m.to)
	}
	if count != len(to) || len(p.got()) < 4 || p.connections() != 1 {
		t.Errorf("%d recipients in %d messages over %d connections", count, len(p.got()), p.connections())
	}
}

func TestSizeLimit(t *testing.T) {
	w, p := relayWorld(t)
	p.ehlo = []string{"SIZE 20"}
	wantResult(t, w.start().one("x@example.org"), queue.Failed, 0, "5.3.4", "limit of 20")
	if strings.Contains(p.said(), "MAIL") {
		t.Error("the server was asked all the same")
	}
	for _, nonsense := range []string{"SIZE", "SIZE 0", "SIZE -1", "SIZE 99999999999999999999999", "SIZE x"} {
		w, p := relayWorld(t)
		p.ehlo = []string{nonsense}
		wantResult(t, w.start().one("x@example.org"), queue.Delivered, 250)
	}
}

func TestParameters(t *testing.T) {
	tests := []struct {
		name       string
		ehlo       []string
		change     func(*queue.Job)
		mail, rcpt string
		relayed    bool
	}{
		{"all", []string{"size 1000", "8bitmime", "dsn"}, func(*queue.Job) {},
			"FROM:<MARK-sender@client.example> BODY=8BITMIME SIZE=34 RET=HDRS ENVID=id+2B1",
			"TO:<x@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=RFC822;orig+2Bx@example.org", true},
		{"nothing offered", nil, func(*queue.Job) {}, "FROM:<MARK-sender@client.example>", "TO:<x@example.org>", false},
		{"broken values", []string{"DSN"}, func(j *queue.Job) {
			j.Message.EnvID, j.Message.Ret = "a\r\nb", "ALL"
			j.Envelopes[0].Notify, j.Envelopes[0].ORCPT = "NEVER,SUCCESS,what", "rfc822;a\r\nb"
		}, "FROM:<MARK-sender@client.example>", "TO:<x@example.org> NOTIFY=NEVER", true},
		{"null sender", nil, func(j *queue.Job) { j.Message.Sender = "" }, "FROM:<>", "TO:<x@example.org>", false},
		{"international domain", nil, func(j *queue.Job) { j.Envelopes[0].Address = "x@bücher.example" },
			"FROM:<MARK-sender@client.example>", "TO:<x@xn--bcher-kva.example>", false},
		{"international", []string{"SMTPUTF8"}, func(j *queue.Job) {
			j.Message.UTF8, j.Envelopes[0].Address = true, "dörte@example.org"
		}, "FROM:<MARK-sender@client.example> SMTPUTF8", "TO:<dörte@example.org>", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, p := relayWorld(t)
			p.ehlo = tt.ehlo
			j := job(1, "x@example.org")
			j.Message.EnvID, j.Message.Ret = "id+1", "HDRS"
			j.Envelopes[0].Notify, j.Envelopes[0].ORCPT = "SUCCESS,FAILURE", "rfc822;orig+x@example.org"
			tt.change(&j)
			res := w.start().deliver(j)[0]
			wantResult(t, res, queue.Delivered, 250)
			if res.Relayed != tt.relayed {
				t.Errorf("relayed is %t", res.Relayed)
			}
			got := p.got()[0]
			if got.from != tt.mail || got.to[0] != tt.rcpt {
				t.Errorf("MAIL %s\nRCPT %s\nwant\nMAIL %s\nRCPT %s", got.from, got.to[0], tt.mail, tt.rcpt)
			}
		})
	}
}

func TestNoSMTPUTF8(t *testing.T) {
	w, p := relayWorld(t)
	j := job(1, "x@example.org")
	j.Message.UTF8 = true
	wantResult(t, w.start().deliver(j)[0], queue.Failed, 0, "5.6.7")
	j = job(2, "dörte@example.org", "x@example.org")
	res := w.deliver(j)
	wantResult(t, res[0], queue.Failed, 0, "5.6.7")
	wantResult(t, res[1], queue.Delivered, 250)
	if len(p.got()) != 1 || len(p.got()[0].to) != 1 {
		t.Errorf("got %+v", p.got())
	}
}

func TestAddressCannotForgeCommand(t *testing.T) {
	w, p := relayWorld(t)
	res := w.start().deliver(job(1, "x\r\nRCPT TO:<y>@example.org", "z@example.org"))
	wantResult(t, res[0], queue.Failed, 0)
	wantResult(t, res[1], queue.Delivered, 250)
	if strings.Contains(p.said(), "<y>") {
		t.Errorf("dialogue:\n%s", p.said())
	}
}

func TestMailFrom(t *testing.T) {
	w, p := relayWorld(t)
	w.lookup.set(lookup.Route{Hosts: []lookup.RelayURL{plainRelay}, MailFrom: "new@example.net", Helo: "helo.example.net"})
	w.start().one("x@example.org")
	j := job(100, "x@example.org")
	j.Message.Sender = ""
	w.deliver(j)
	got := p.got()
	if got[0].from[:22] != "FROM:<new@example.net>" || got[1].from[:7] != "FROM:<>" {
		t.Errorf("reverse-paths %q and %q", got[0].from, got[1].from)
	}
	if !strings.HasPrefix(p.said(), "EHLO helo.example.net\n") {
		t.Errorf("dialogue:\n%s", p.said())
	}
}

func TestRouteFails(t *testing.T) {
	w, _ := relayWorld(t)
	w.lookup.routeErr = io.ErrUnexpectedEOF
	w.lookup.route = lookup.Route{}
	wantResult(t, w.start().one("x@example.org"), queue.Deferred, 0, "4.3.0", "route")
}

func TestReportedAgain(t *testing.T) {
	w, _ := relayWorld(t)
	w.queue.doneErr = 2
	wantResult(t, w.start().one("x@example.org"), queue.Delivered, 250)
}
