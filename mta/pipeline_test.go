package mta

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"tabard/lookup"
	"tabard/queue"
)

// together makes the peer answer nothing before n bytes of further commands have
// come: who waits for each answer would wait for ever.
func together(n int) action {
	return func(c *peerConn, _ string) (string, bool) {
		_, err := c.in.Peek(n)
		return "250 2.0.0 ok", err == nil
	}
}

func TestPipelining(t *testing.T) {
	w, p := relayWorld(t, impatient)
	p.ehlo = append(p.ehlo, "PIPELINING")
	p.on("MAIL", together(len("RCPT TO:<x@example.org>\r\nRCPT TO:<y@example.org>\r\nDATA\r\n")))
	w.start()
	for range 2 {
		for _, r := range w.deliver(job(w.queue.nextID(), "x@example.org", "y@example.org")) {
			wantResult(t, r, queue.Delivered, 250)
		}
	}
	if got := p.got(); len(got) != 2 || got[1].body != testBody || p.connections() != 1 {
		t.Errorf("%d messages over %d connections: %+v", len(got), p.connections(), got)
	}
}

// Without the offer, each command waits for the answer to the one before.
func TestNotPipelined(t *testing.T) {
	w, p := relayWorld(t)
	alone := func(answer string) action {
		return func(c *peerConn, line string) (string, bool) {
			if c.in.Buffered() > 0 {
				t.Errorf("more came along with %q", line)
			}
			return answer, true
		}
	}
	p.on("MAIL", alone("250 ok")).on("RCPT", alone("550 5.1.1 unknown"))
	wantResult(t, w.start().one("x@example.org"), queue.Failed, 550)
	if strings.Contains(p.said(), "DATA") {
		t.Errorf("DATA for nobody:\n%s", p.said())
	}
}

// What goes out together stays within bounds, however many recipients there are.
func TestPipelineBounded(t *testing.T) {
	w, p := relayWorld(t)
	p.ehlo = append(p.ehlo, "PIPELINING")
	w.start()
	to := make([]string, 100)
	for i := range to {
		to[i] = fmt.Sprintf("%s%d@example.org", strings.Repeat("x", 50), i)
	}
	for _, r := range w.deliver(job(1, to...)) {
		wantResult(t, r, queue.Delivered, 250)
	}
	if got := p.got(); len(got) != 1 || len(got[0].to) != len(to) {
		t.Errorf("%d messages", len(got))
	}
	c := &dialogue{link: &link{offers: map[string]string{"PIPELINING": ""}}}
	for _, tt := range []struct{ size, want int }{{10, groupCommands}, {1000, 8}, {20000, 1}} {
		list := make([]question, 200)
		for i := range list {
			list[i].line = strings.Repeat("x", tt.size)
		}
		if n := c.group(list); n != tt.want {
			t.Errorf("%d commands of %d bytes together, want %d", n, tt.size, tt.want)
		}
	}
}

// DATA is on its way when the refusals come: the body is not, and the session
// goes on.
func TestPipelinedRefusals(t *testing.T) {
	for _, tt := range []struct {
		name, step, answer string
		lmtp               bool
		want               queue.Outcome
		dot                bool
		conns              int
	}{
		{name: "all recipients, 354", step: "RCPT", answer: "550 5.1.1 unknown", want: queue.Failed, dot: true, conns: 1},
		{name: "all recipients later, 354", step: "RCPT", answer: "450 4.2.0 later", want: queue.Deferred, dot: true, conns: 1},
		{name: "sender, 354", step: "MAIL", answer: "550 5.7.1 not you", want: queue.Failed, dot: true, conns: 1},
		{name: "LMTP, 354", step: "RCPT", answer: "550 5.1.1 unknown", lmtp: true, want: queue.Failed, conns: 2},
		{name: "DATA", step: "DATA", answer: "451 4.3.0 no room", want: queue.Deferred, conns: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, p := relayWorld(t)
			if p.lmtp = tt.lmtp; tt.lmtp {
				w.relay(lookup.RelayURL{Scheme: lookup.SchemeLMTP, Host: "192.0.2.3", Port: "25"})
			}
			p.ehlo = append(p.ehlo, "PIPELINING")
			p.on(tt.step, say(tt.answer))
			w.start()
			wantResult(t, w.one("x@example.org"), tt.want, 0, tt.answer[4:9])
			if got := p.got(); len(got) > 1 || len(got) == 1 && got[0].body != "" {
				t.Errorf("the body went out: %+v", got)
			} else if tt.dot != (len(got) == 1) {
				t.Errorf("body ended by a dot: %t", len(got) == 1)
			}
			p.on(tt.step, nil)
			wantResult(t, w.one("x@example.org"), queue.Delivered, 250)
			if n := p.connections(); n != tt.conns {
				t.Errorf("%d connections, want %d", n, tt.conns)
			}
		})
	}
}

// Bytes that nobody asked for must not stand for the answer to the body.
func TestPipelinedUnsolicited(t *testing.T) {
	w, p := relayWorld(t)
	p.ehlo = append(p.ehlo, "PIPELINING")
	p.on("MAIL", say("250 ok\r\n250 ok\r\n354 ok\r\n250 2.0.0 delivered"))
	p.on("RCPT", say("550 5.1.1 unknown"))
	wantResult(t, w.start().one("x@example.org"), queue.Deferred, 0, "without being asked")
}

// By BDAT a body arrives byte for byte, without dots, at hand or streamed.
func TestChunking(t *testing.T) {
	w, p := relayWorld(t)
	p.ehlo = append(p.ehlo, "CHUNKING", "PIPELINING")
	w.start()
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 20 {
		body := randomBody(r, 1+r.IntN(400))
		j := job(i+1, "x@example.org")
		j.Body, j.Message.Size = body, int64(len(body))
		if i%2 == 1 {
			w.stream(&j, 1+r.IntN(5000))
		}
		wantResult(t, w.deliver(j)[0], queue.Delivered, 250)
		if got := p.got(); !bytes.Equal([]byte(got[i].body), body) {
			t.Fatalf("body %d of %d bytes arrived as %d bytes", i, len(body), len(got[i].body))
		}
	}
	if strings.Contains(p.said(), "DATA") || p.connections() != 1 {
		t.Errorf("%d connections:\n%s", p.connections(), p.said())
	}
	p.on(".", say("552 5.3.4 too much"))
	wantResult(t, w.one("x@example.org"), queue.Failed, 552, "5.3.4")
}

func TestChunkingLMTP(t *testing.T) {
	w, p := relayWorld(t)
	p.lmtp, p.ehlo = true, append(p.ehlo, "CHUNKING")
	w.relay(lookup.RelayURL{Scheme: lookup.SchemeLMTP, Host: "192.0.2.3", Port: "25"}).start()
	p.on(".", say("250 2.1.5 taken\r\n550 5.2.2 full"))
	rs := w.deliver(job(1, "x@example.org", "y@example.org"))
	wantResult(t, rs[0], queue.Delivered, 250)
	wantResult(t, rs[1], queue.Failed, 550, "5.2.2")
}

// A body that turns out unfit, or ends early, never arrives.
func TestChunkingBroken(t *testing.T) {
	w, p := relayWorld(t)
	p.ehlo = append(p.ehlo, "CHUNKING")
	w.start()
	for i, tt := range []struct {
		body string
		size int64
		want queue.Outcome
	}{{"a\r\nb\nc\r\n", 9, queue.Failed}, {"a\r\n", 9, queue.Deferred}, {"a\r\nb\r\nc\r\n", 4, queue.Deferred}} {
		j := job(i+1, "x@example.org")
		j.Body, j.Message.Size = []byte(tt.body), tt.size
		w.stream(&j, 3)
		wantResult(t, w.deliver(j)[0], tt.want, 0)
	}
	if n := len(p.got()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

func TestParameterEncoding(t *testing.T) {
	if got := xtext("a+b=c d"); got != "a+2Bb+3Dc+20d" {
		t.Errorf("xtext: %q", got)
	}
	for utf8, want := range map[bool]string{true: `é\x{2B}a\x{5C}`, false: `\x{E9}\x{2B}a\x{5C}`} {
		if got := unitext(`é+a\`, utf8); got != want {
			t.Errorf("unitext: %q, want %q", got, want)
		}
	}
}
