package smtpd

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tabard/lookup"
)

func TestConnectionLimits(t *testing.T) {
	tests := []struct {
		total, each int
		want        string
	}{
		{2, 10, "421 4.3.2 Too many connections\r\n"},
		{10, 2, "421 4.7.0 Too many connections from your address\r\n"},
	}
	for _, tt := range tests {
		r := start(t, onConfig(func(c *Config) { c.MaxConnections, c.MaxPerAddress = tt.total, tt.each }))
		a, b := r.hello(), r.hello()
		c := r.dial()
		c.expect(tt.want)
		c.gone()
		b.do("NOOP", "250")
		a.do("QUIT", "221")
		a.gone()
		r.await("smtp disconnected")
		// The place is free once the session is closed; its line comes after.
		r.hello()
	}
}

func TestCommandErrors(t *testing.T) {
	r := start(t, onConfig(func(c *Config) { c.MaxErrors = 3 }))
	c := r.hello()
	c.do("FOO", "500")
	c.do("RCPT TO:<x>", "503")
	c.envelope()
	c.do("DATA", "354")
	c.do("x\r\n.", "250") // an accepted message starts the count anew
	c.do("FOO", "500")
	c.do("FOO", "500")
	c.write("FOO\r\nMAIL FROM:<a@b.example>\r\n")
	c.expect("500")
	c.expect("421 4.7.0 Too many errors")
	c.gone()
	r.await(`reason="too many errors"`)
	r.await(`smtp failed-command" session=`)
}

func TestMaxMails(t *testing.T) {
	r := start(t, onConfig(func(c *Config) { c.MaxMails = 2 }))
	c := r.hello()
	for range 2 {
		c.envelope()
		c.do("DATA", "354")
		c.do("x\r\n.", "250")
	}
	c.do("MAIL FROM:<a@b.example>", "452 4.3.2")
}

func TestMaxRcpt(t *testing.T) {
	r := start(t, onConfig(func(c *Config) { c.MaxRcpt = 2 }))
	c := r.hello()
	c.envelope()
	c.do("RCPT TO:<c@example.org>", "250")
	c.do("RCPT TO:<d@example.org>", "452 4.5.3")
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	if n := len(r.only().Recipients); n != 2 {
		t.Errorf("%d recipients", n)
	}
}

// TestRcptOvershoot: a client that pipelines more recipients than a message may
// have gets it through to those that were taken; one that never ends does not.
func TestRcptOvershoot(t *testing.T) {
	r := start(t, onConfig(func(c *Config) { c.MaxRcpt, c.MaxErrors = 3, 2 }))
	c := r.hello()
	for range 2 {
		c.envelope()
		c.do("RCPT TO:<c@example.org>", "250")
		c.do("RCPT TO:<d@example.org>", "250")
		for range 3 {
			c.do("RCPT TO:<e@example.org>", "452 4.5.3")
		}
		c.do("DATA", "354")
		c.do("x\r\n.", "250")
	}
	c.envelope()
	c.do("RCPT TO:<c@example.org>", "250")
	c.do("RCPT TO:<d@example.org>", "250")
	for range 4 {
		c.do("RCPT TO:<e@example.org>", "452 4.5.3")
	}
	c.write("RCPT TO:<e@example.org>\r\n")
	c.expect("452 4.5.3")
	c.expect("421 4.7.0 Too many errors")
	c.gone()
}

// TestExpansionBound: aliases cannot make an unbounded message of a bounded one.
func TestExpansionBound(t *testing.T) {
	many := make([]lookup.Target, 1011)
	for i := range many {
		many[i] = lookup.Target{Action: "local", Address: strings.Repeat("x", i) + "@example.org"}
	}
	r := start(t, onConfig(func(c *Config) { c.MaxRcpt = 1 }), onLookup(func(f *fakeLookup) {
		f.recipient = func(lookup.RecipientRequest) (lookup.RecipientReply, error) {
			return lookup.RecipientReply{Targets: many}, nil
		}
	}))
	c := r.hello()
	c.do("MAIL FROM:<a@b.example>", "250")
	c.do("RCPT TO:<list@example.org>", "452 4.5.3")
}

func TestMessageSize(t *testing.T) {
	r := start(t, onConfig(func(c *Config) { c.MaxMessageSize = 1000 }))
	c := r.hello()
	c.do("MAIL FROM:<a@b.example> SIZE=1001", "552 5.3.4")
	c.envelope()
	c.do("DATA", "354")
	c.do(strings.Repeat("x", 998)+"\r\n.", "250")
	c.envelope()
	c.do("DATA", "354")
	c.do(strings.Repeat("x", 999)+"\r\n.", "552 5.3.4")
	c.envelope() // in step
	c.do("DATA", "354")
	go func() { _, _ = io.Copy(c.conn, strings.NewReader(strings.Repeat("x\r\n", 1<<20))) }()
	c.expect("552 5.3.4")
	r.only()
}

func TestLongLines(t *testing.T) {
	t.Run("command", func(t *testing.T) {
		for _, n := range []int{maxCommand, maxSASL + 1, inputBuffer * 3} {
			c := start(t).hello()
			c.write("NOOP " + strings.Repeat("x", n) + "\r\nNOOP\r\n")
			c.expect("500 5.5.2 Line too long")
			c.gone()
		}
	})
	t.Run("command that fits", func(t *testing.T) {
		c := start(t).hello()
		c.do("NOOP "+strings.Repeat("x", maxCommand-7), "250")
	})
	t.Run("endless", func(t *testing.T) {
		c := start(t).hello()
		c.write(strings.Repeat("x", inputBuffer))
		c.expect("500 5.5.2")
		c.gone()
	})
	t.Run("data", func(t *testing.T) {
		r := start(t)
		c := r.hello()
		c.envelope()
		c.do("DATA", "354")
		c.do(strings.Repeat("x", maxLine+1)+"\r\n.", "554 5.6.0 Line longer than 65535")
		c.envelope()
		c.do("DATA", "354")
		c.do(strings.Repeat("x", maxLine)+"\r\n.", "250")
		r.only()
	})
}

func TestHTTP(t *testing.T) {
	for _, line := range []string{"GET / HTTP/1.1", "POST /x HTTP/1.0", "PRI * HTTP/2.0", "Host: mx.example.org"} {
		r := start(t)
		c := r.dial()
		c.expect("220")
		c.write(line + "\r\nHELO x\r\nMAIL FROM:<a@b.example>\r\n")
		c.expect("554 5.5.0")
		c.gone()
	}
}

func TestTimeouts(t *testing.T) {
	t.Run("command", func(t *testing.T) {
		r := start(t, onConfig(func(c *Config) { c.Timeouts.Command = 50 * time.Millisecond }))
		c := r.dial()
		c.expect("220")
		c.expect("421 4.4.2 Timeout")
		c.gone()
		r.await("reason=timeout")
	})
	t.Run("trickle", func(t *testing.T) {
		// A line has one deadline, however often a byte of it comes.
		r := start(t, onConfig(func(c *Config) { c.Timeouts.Command = 100 * time.Millisecond }))
		c := r.dial()
		c.expect("220")
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					_, _ = io.WriteString(c.conn, "x")
				}
			}
		}()
		c.expect("421 4.4.2")
	})
	t.Run("data", func(t *testing.T) {
		r := start(t, onConfig(func(c *Config) { c.Timeouts.Data = 50 * time.Millisecond }))
		c := r.hello()
		c.envelope()
		c.write("DATA\r\nSubject: x\r\n")
		c.expect("354")
		c.expect("421 4.4.2 Timeout\r\n")
		c.gone()
		if n := len(r.queue.all()); n != 0 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("whole message", func(t *testing.T) {
		r := start(t, onConfig(func(c *Config) { c.Timeouts.Message = 50 * time.Millisecond }))
		c := r.hello()
		c.envelope()
		c.do("DATA", "354")
		c.expect("421 4.4.2")
	})
}

// TestLostConnections: clients that vanish at any point leave nothing behind.
func TestLostConnections(t *testing.T) {
	big := strings.Repeat(strings.Repeat("x", 78)+"\r\n", 1000)
	for _, text := range []string{
		"", "EHLO", "EHLO x\r\n", "EHLO x\r\nMAIL FROM:<a@b.example>\r\n", "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nx",
		"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n" + big,
		"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nBDAT 100000\r\n" + big,
		"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nBDAT 1\r\nx",
	} {
		r := start(t)
		c := r.dial()
		c.write(text)
		_ = c.conn.Close()
		r.await("smtp disconnected")
		r.queue.mu.Lock()
		if r.queue.open != 0 || len(r.queue.messages) != 0 {
			t.Errorf("%.40q: %d writers open, %d messages", text, r.queue.open, len(r.queue.messages))
		}
		r.queue.mu.Unlock()
	}
}

// TestShutdown: idle sessions are told, running transactions are finished,
// nothing new is let in.
func TestShutdown(t *testing.T) {
	r := start(t, onQueue(func(q *fakeQueue) { q.hold, q.entered = make(chan struct{}), make(chan struct{}) }))
	idle, busy, open := r.hello(), r.hello(), r.hello()
	open.envelope()
	busy.envelope()
	busy.do("DATA", "354")
	busy.write("x\r\n.\r\n")
	<-r.queue.entered
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), testPatience)
		defer cancel()
		done <- r.srv.Shutdown(ctx)
	}()
	idle.expect("421 4.3.2")
	idle.gone()
	if c, err := net.Dial("tcp", r.addr); err == nil {
		// The kernel may still take it from its backlog; nobody greets.
		_ = c.SetReadDeadline(time.Now().Add(testPatience))
		if n, _ := c.Read(make([]byte, 1)); n != 0 {
			t.Error("a new session was begun")
		}
		_ = c.Close()
	}
	close(r.queue.hold)
	busy.expect("250 2.0.0")
	busy.expect("421 4.3.2")
	busy.gone()
	r.queue.mu.Lock()
	r.queue.hold = nil
	r.queue.mu.Unlock()
	open.do("DATA", "354")
	open.do("y\r\n.", "250")
	open.expect("421 4.3.2")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(r.queue.all()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

// TestShutdownIsBounded: a client that holds a transaction open does not hold
// the server.
func TestShutdownIsBounded(t *testing.T) {
	r := start(t)
	c := r.hello()
	c.envelope()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.srv.Shutdown(ctx); err == nil {
		t.Error("no error")
	}
	c.gone()
}

func TestServe(t *testing.T) {
	r := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.srv.Serve(context.Background(), 7, l); err == nil {
		t.Error("an unknown listener is served")
	}
	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.srv.Serve(ctx, 0, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t}
	c.use(conn)
	c.expect("220")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.do("NOOP", "250") // the session goes on
}
