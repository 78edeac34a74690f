package mta

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/lookup"
	"tabard/queue"
)

// sink is a real go-smtp server that keeps what it gets.
type sink struct {
	mails chan []byte
	keep  bool
}

func (s *sink) NewSession(*smtp.Conn) (smtp.Session, error) { return s, nil }
func (s *sink) Reset()                                      {}
func (s *sink) Logout() error                               { return nil }
func (s *sink) Mail(string, *smtp.MailOptions) error        { return nil }
func (s *sink) Rcpt(string, *smtp.RcptOptions) error        { return nil }
func (s *sink) Data(r io.Reader) error {
	if !s.keep {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	body, err := io.ReadAll(r)
	s.mails <- body
	return err
}

func startSink(t testing.TB, keep bool) (*sink, string) {
	t.Helper()
	s := &sink{mails: make(chan []byte, 1000), keep: keep}
	srv := smtp.NewServer(s)
	srv.Domain = "sink.example"
	srv.MaxMessageBytes = 100 << 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return s, l.Addr().String()
}

// randomBody makes CRLF text that is hard on dot-stuffing and on the borders of
// buffers.
func randomBody(r *rand.Rand, lines int) []byte {
	words := []string{".", "..", "", "\t", "a", "=20", "RSET", "EHLO x", "QUIT", "é", "\x80\xff", strings.Repeat("y", 900)}
	var b bytes.Buffer
	for range lines {
		for range r.IntN(3) {
			b.WriteString(words[r.IntN(len(words))])
		}
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

// A body arrives byte for byte, whether it came with the job or streamed.
func TestBodyRoundTrip(t *testing.T) {
	s, addr := startSink(t, true)
	w := newWorld(t)
	w.at("192.0.2.3:25", addr).relay(plainRelay).start()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		body := randomBody(r, 1+r.IntN(400))
		j := job(i+1, "x@example.org")
		j.Body, j.Message.Size = body, int64(len(body))
		if i%2 == 1 {
			w.stream(&j, 1+r.IntN(5000))
		}
		wantResult(t, w.deliver(j)[0], queue.Delivered, 250)
		if got := <-s.mails; !bytes.Equal(got, body) {
			t.Fatalf("body %d of %d bytes arrived as %d bytes", i, len(body), len(got))
		}
	}
}

// A body that begins a block with a command must not be taken for one.
func TestBodyLikeCommands(t *testing.T) {
	s, addr := startSink(t, true)
	w := newWorld(t)
	w.at("192.0.2.3:25", addr).relay(plainRelay).start()
	body := []byte(strings.Repeat("EHLO evil.example\r\n", 100000))
	j := job(1, "x@example.org")
	j.Body, j.Message.Size = nil, int64(len(body))
	w.queue.bodies[1], w.queue.chunk = body, len("EHLO evil.example\r\n")*64
	wantResult(t, w.deliver(j)[0], queue.Delivered, 250)
	if got := <-s.mails; !bytes.Equal(got, body) {
		t.Errorf("%d bytes arrived of %d", len(got), len(body))
	}
}

func TestBareLineEnds(t *testing.T) {
	w, p := relayWorld(t)
	w.start()
	for i, body := range []string{"a\nb\r\n", "a\rb\r\n", "a\r\n.\nMAIL FROM:<x>\r\n", "a\r\r\n", "\n", "a\r"} {
		for _, streamed := range []bool{false, true} {
			j := job(2*i+1, "x@example.org")
			j.Body, j.Message.Size = []byte(body), int64(len(body))
			if streamed {
				j.Message.ID++
				j.Envelopes[0].ID.Message++
				w.stream(&j, 1)
			}
			wantResult(t, w.deliver(j)[0], queue.Failed, 0, "5.6.0")
		}
	}
	if n := len(p.got()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

func TestLineEnds(t *testing.T) {
	for _, tt := range []struct {
		chunks []string
		ok     bool
	}{
		{[]string{"a\r\nb\r\n"}, true}, {[]string{"a\r", "\nb", "\r\n"}, true}, {[]string{"", "a\r", "", "\n"}, true},
		{[]string{"a\r", "b"}, false}, {[]string{"a", "\n"}, false}, {[]string{"\r", "\r\n"}, false},
	} {
		var e lineEnds
		var err error
		for _, c := range tt.chunks {
			err = errors.Join(err, e.check([]byte(c)))
		}
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.chunks, err)
		}
	}
}

// A message that cannot be read to its end is never sent as if it had ended.
func TestBodyBreaksOff(t *testing.T) {
	w, p := relayWorld(t)
	w.start()
	body := []byte(strings.Repeat("line\r\n", 1000))
	w.queue.bodies[1], w.queue.bodies[2] = body, body
	j := job(1, "x@example.org")
	j.Body, j.Message.Size = nil, int64(len(body))+1
	wantResult(t, w.deliver(j)[0], queue.Deferred, 0, "ends early")
	for i, broken := range []queue.Job{job(3, "x@example.org"), job(4, "x@example.org")} {
		if broken.Message.Size--; i == 1 {
			broken.Body, broken.Message.Size = nil, 0
		}
		wantResult(t, w.deliver(broken)[0], queue.Deferred, 0, "ends early")
	}
	w.queue.mu.Lock()
	w.queue.bodyErr, w.queue.chunk = errors.New("queue is away"), 100
	w.queue.mu.Unlock()
	j = job(2, "x@example.org")
	j.Body, j.Message.Size = nil, int64(len(body))
	wantResult(t, w.deliver(j)[0], queue.Deferred, 0, "queue is away")
	if n := len(p.got()); n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}

// What a server says before it hangs up on a body counts.
func TestRefusedDuringBody(t *testing.T) {
	w, p := relayWorld(t)
	p.on("DATA", func(c *peerConn, _ string) (string, bool) {
		_, _ = io.WriteString(c.Conn, "354 go\r\n")
		_, _ = io.CopyN(io.Discard, c.in, 1000)
		return "552 5.3.4 too big after all", false
	})
	p.ehlo = nil
	body := []byte(strings.Repeat("line\r\n", 5000000))
	w.queue.bodies[1] = body
	j := job(1, "x@example.org")
	j.Body, j.Message.Size = nil, int64(len(body))
	wantResult(t, w.start().deliver(j)[0], queue.Failed, 552, "5.3.4")
}

func TestLMTP(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			w, p := newWorld(t), newPeer(t)
			url := lookup.RelayURL{Scheme: lookup.SchemeLMTP, Host: "192.0.2.3", Port: "24"}
			if network == "unix" {
				url.Host, url.Port = t.TempDir()+"/lmtp", "0"
				p.l.Close()
				var err error
				if p.l, err = net.Listen("unix", url.Host); err != nil {
					t.Fatal(err)
				}
			}
			p.lmtp = true
			w.at("192.0.2.3:24", p.start()).relay(url).start()
			testLMTP(t, w, p)
		})
	}
}

func testLMTP(t *testing.T, w *world, p *peer) {
	p.on(".", func(*peerConn, string) (string, bool) {
		return "250 2.1.5 kept\r\n552 5.2.2 full\r\n451 4.3.0 later", true
	})
	p.on("RCPT", func(_ *peerConn, line string) (string, bool) {
		if strings.Contains(line, "unknown") {
			return "550 5.1.1 unknown", true
		}
		return "250 ok", true
	})
	res := w.deliver(job(1, "a@example.org", "unknown@example.org", "b@example.org", "c@example.org"))
	wantResult(t, res[0], queue.Delivered, 250, "kept")
	wantResult(t, res[1], queue.Failed, 550)
	wantResult(t, res[2], queue.Failed, 552, "full")
	wantResult(t, res[3], queue.Deferred, 451)
	if !strings.HasPrefix(p.said(), "LHLO us.example.net\n") {
		t.Errorf("dialogue:\n%s", p.said())
	}
	// The connection ends after the first of two replies: one is delivered.
	p.on("RCPT", nil).on(".", func(*peerConn, string) (string, bool) { return "250 2.1.5 kept", false })
	res = w.deliver(job(2, "a@example.org", "b@example.org"))
	wantResult(t, res[0], queue.Delivered, 250)
	wantResult(t, res[1], queue.Deferred, 0, "may arrive twice")
}

// slowConn is one whose reader takes so many bytes a second.
type slowConn struct {
	net.Conn
	rate int
}

// Read implements net.Conn.
func (c slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	<-time.After(time.Duration(n) * time.Second / time.Duration(c.rate))
	return n, err
}

// A server may take its time for each block, but not for ever for all of them.
func TestSlowBody(t *testing.T) {
	for _, offer := range []string{"8BITMIME", "CHUNKING"} {
		for rate, want := range map[int]queue.Outcome{bodyRate * 2: queue.Delivered, bodyRate / 2: queue.Deferred} {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				p.ehlo = []string{offer}
				w := hostileWorld(t, func(context.Context, string, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					p.wg.Go(func() { p.serve(slowConn{theirs, rate}) })
					return ours, nil
				})
				w.start()
				j := job(1, "x@example.org")
				j.Body = []byte(strings.Repeat(strings.Repeat("x", 78)+"\r\n", 5000))
				j.Message.Size = int64(len(j.Body))
				w.stream(&j, 16<<10)
				began := time.Now()
				r := w.deliver(j)[0]
				limit := 3*time.Minute + time.Duration(j.Message.Size)*time.Second/bodyRate
				if took := time.Since(began); r.Outcome != want || took > limit+time.Minute || want == queue.Deferred && !strings.Contains(r.Text, "took less than 1000 bytes/s") {
					t.Errorf("%s, %d bytes/s: after %v %+v", offer, rate, took, r)
				}
			})
		}
	}
}
