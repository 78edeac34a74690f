package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/lookup"
	"tabard/queue"
)

// lmtpServer is a real LMTP server that keeps what it gets.
type lmtpServer struct {
	mu       sync.Mutex
	sessions int
	lhlo     string
	mails    []lmtpMail
	rcptErr  error
	dataErr  error
	open     []net.Conn
}

type lmtpMail struct {
	from, to, body string
	utf8           bool
}

// NewSession implements smtp.Backend.
func (s *lmtpServer) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	s.lhlo = c.Hostname()
	s.open = append(s.open, c.Conn())
	return &lmtpSession{srv: s}, nil
}

// hangUp closes every connection.
func (s *lmtpServer) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		_ = c.Close()
	}
}

type lmtpSession struct {
	srv  *lmtpServer
	mail lmtpMail
}

func (s *lmtpSession) Reset()        { s.mail = lmtpMail{} }
func (s *lmtpSession) Logout() error { return nil }
func (s *lmtpSession) Mail(from string, o *smtp.MailOptions) error {
	s.mail.from, s.mail.utf8 = from, o.UTF8
	return nil
}
func (s *lmtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.to = to
	return s.srv.rcptErr
}
func (s *lmtpSession) Data(io.Reader) error { return errors.New("not LMTP") }
func (s *lmtpSession) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.body = string(b)
	s.srv.mu.Lock()
	s.srv.mails = append(s.srv.mails, s.mail)
	s.srv.mu.Unlock()
	status.SetStatus(s.mail.to, s.srv.dataErr)
	return nil
}

var _ smtp.LMTPSession = (*lmtpSession)(nil)

// startLMTP serves on a socket of a network, and returns its address.
func startLMTP(t *testing.T, network string, s *lmtpServer, adjust func(*smtp.Server)) string {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "lmtp")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(s)
	srv.LMTP, srv.Domain, srv.EnableSMTPUTF8 = true, "store.example", true
	if adjust != nil {
		adjust(srv)
	}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().String()
}

func lmtpJob(addr string) queue.Job {
	// go-smtp's server wants a domain even of an LMTP recipient.
	return testJob(1, lookup.Delivery{Method: "lmtp", LMTP: addr, User: "bob@store"}, testBody)
}

func TestLMTPDelivers(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s := &lmtpServer{}
			addr := startLMTP(t, network, s, nil)
			a := testAgent(t, osFS{})
			job := lmtpJob(addr)
			st := a.try(t, job)
			wantStatus(t, st, queue.Delivered, "2.0.0", "queued")
			if st.remote != addr || st.code != 250 {
				t.Errorf("status %+v", st)
			}
			job.Delivery.RcptTo = true
			wantStatus(t, a.try(t, job), queue.Delivered, "2.0.0", "")
			if s.sessions != 1 || s.lhlo != "mx.example" {
				t.Errorf("%d sessions, LHLO %q", s.sessions, s.lhlo)
			}
			want := []lmtpMail{{"alice@a.example", "bob@store", testBody, false}, {"alice@a.example", "bob@b.example", testBody, false}}
			if len(s.mails) != 2 || s.mails[0] != want[0] || s.mails[1] != want[1] {
				t.Errorf("got %+v", s.mails)
			}
		})
	}
}

func TestLMTPReplies(t *testing.T) {
	reply := func(code int, enhanced smtp.EnhancedCode, text string) error {
		return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
	}
	for _, c := range []struct {
		name           string
		rcpt, data     error
		outcome        queue.Outcome
		code           int
		enhanced, text string
	}{
		{"rcpt 5xx", reply(550, smtp.EnhancedCode{5, 1, 1}, "no such user"), nil, queue.Failed, 550, "5.1.1", "no such user"},
		{"rcpt 4xx", reply(451, smtp.EnhancedCode{4, 2, 1}, "later"), nil, queue.Deferred, 451, "4.2.1", "later"},
		{"data 5xx", nil, reply(552, smtp.EnhancedCode{5, 2, 2}, "full\nreally"), queue.Failed, 552, "5.2.2", "full really"},
		{"data 4xx", nil, reply(452, smtp.EnhancedCode{4, 2, 2}, "full"), queue.Deferred, 452, "4.2.2", "full"},
		{"no enhanced code", reply(550, smtp.NoEnhancedCode, "no"), nil, queue.Failed, 550, "5.0.0", "no"},
		{"contradiction", reply(450, smtp.EnhancedCode{5, 1, 1}, "hm"), nil, queue.Deferred, 450, "4.0.0", "hm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &lmtpServer{rcptErr: c.rcpt, dataErr: c.data}
			addr := startLMTP(t, "tcp", s, nil)
			a := testAgent(t, osFS{})
			st := a.try(t, lmtpJob(addr))
			wantStatus(t, st, c.outcome, c.enhanced, c.text)
			if st.code != c.code || st.remote != addr {
				t.Errorf("status %+v", st)
			}
			// The connection is in order for the next message.
			s.rcptErr, s.dataErr = nil, nil
			wantStatus(t, a.try(t, lmtpJob(addr)), queue.Delivered, "2.0.0", "")
			if s.sessions != 1 {
				t.Errorf("%d sessions", s.sessions)
			}
		})
	}
}

// A kept connection that the server closed meanwhile costs nothing.
func TestLMTPStaleConnection(t *testing.T) {
	s := &lmtpServer{}
	addr := startLMTP(t, "tcp", s, nil)
	a := testAgent(t, osFS{})
	for range 2 {
		wantStatus(t, a.try(t, lmtpJob(addr)), queue.Delivered, "2.0.0", "")
		s.hangUp()
	}
	if s.sessions != 2 || len(s.mails) != 2 {
		t.Errorf("%d sessions, %d mails", s.sessions, len(s.mails))
	}
}

func TestLMTPTrouble(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for _, c := range []struct{ name, addr, text string }{
		{"nobody listens", closed.Addr().String(), "refused"},
		{"no socket", filepath.Join(t.TempDir(), "none"), "no such file"},
		{"refusal at connect", script(t, "554 5.3.2 go away\r\n"), "go away"},
		{"hangs up", script(t, ""), "EOF"},
		{"refuses LHLO", script(t, "220 hi\r\n", "550 no\r\n"), "no"},
		{"endless reply", script(t, "220 hi\r\n", strings.Repeat("250-more\r\n", 20_000)), "too long"},
		{"hangs up in MAIL", script(t, "220 hi\r\n", "250 hi\r\n"), "EOF"},
		{"hangs up in DATA", script(t, "220 hi\r\n", "250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantStatus(t, testAgent(t, osFS{}).try(t, lmtpJob(c.addr)), queue.Deferred, "4.4.1", c.text)
		})
	}
	t.Run("garbage", func(t *testing.T) {
		addr := script(t, "\x00\xff hello\r\n")
		wantStatus(t, testAgent(t, osFS{}).try(t, lmtpJob(addr)), queue.Deferred, "4.5.0", "short response")
	})
	t.Run("silence", func(t *testing.T) {
		a := newAgent(newFakeQueue(), Options{LMTPTimeout: 50 * time.Millisecond}.withDefaults(), osFS{})
		wantStatus(t, a.try(t, lmtpJob(silent(t))), queue.Deferred, "4.4.1", "timeout")
	})
	t.Run("bad destination", func(t *testing.T) {
		wantStatus(t, testAgent(t, osFS{}).try(t, lmtpJob("")), queue.Failed, "5.3.5", "bad destination")
	})
}

// script serves one connection: a reply at once, then one for each piece it
// gets, then it closes.
func script(t *testing.T, replies ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		for i, reply := range replies {
			if i > 0 {
				if _, err := c.Read(make([]byte, 4096)); err != nil {
					return
				}
			}
			_, _ = io.WriteString(c, reply)
		}
		if len(replies) > 1 {
			_, _ = c.Read(make([]byte, 4096))
		}
	}()
	return ln.Addr().String()
}

// silent accepts connections and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

// A body that breaks off is not ended as if it were whole.
func TestLMTPBodyBreaksOff(t *testing.T) {
	s := &lmtpServer{}
	job := lmtpJob(startLMTP(t, "tcp", s, nil))
	job.Body, job.Message.Size = nil, 3*queue.InlineBody
	q := newFakeQueue()
	q.bodies[job.Message.ID] = append([]byte("A: b\r\n\r\n"), bytes.Repeat([]byte("x\r\n"), queue.InlineBody)...)
	q.bodyErr = func(offset int64) error {
		if offset > queue.InlineBody {
			return errors.New("queue is gone")
		}
		return nil
	}
	a := newAgent(q, Options{Hostname: "h"}.withDefaults(), osFS{})
	wantStatus(t, a.try(t, job), queue.Deferred, "4.3.0", "lmtp: body: read from the queue at 131072: queue is gone")
	if len(s.mails) != 0 {
		t.Errorf("got %d mails", len(s.mails))
	}
}

func TestLMTPStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		if c, err := ln.Accept(); err == nil {
			defer func() { _ = c.Close() }()
			cancel()
			_, _ = c.Read(make([]byte, 1)) // until the client closes
		}
	}()
	a := testAgent(t, osFS{})
	job := lmtpJob(ln.Addr().String())
	if st := a.deliver(ctx, newParcel(a.worker, job, job.Envelopes[0])); st.outcome != queue.Returned {
		t.Errorf("status %+v", st)
	}
}

func TestLMTPNonASCII(t *testing.T) {
	for _, able := range []bool{true, false} {
		s := &lmtpServer{}
		job := lmtpJob(startLMTP(t, "tcp", s, func(srv *smtp.Server) { srv.EnableSMTPUTF8 = able }))
		job.Message.Sender = "jürgen@a.example"
		st := testAgent(t, osFS{}).try(t, job)
		if !able {
			wantStatus(t, st, queue.Failed, "5.6.7", "UTF-8")
			continue
		}
		wantStatus(t, st, queue.Delivered, "2.0.0", "")
		if len(s.mails) != 1 || !s.mails[0].utf8 || s.mails[0].from != "jürgen@a.example" {
			t.Errorf("got %+v", s.mails)
		}
	}
}

func TestLMTPAddressWithLineEnd(t *testing.T) {
	job := lmtpJob(startLMTP(t, "tcp", &lmtpServer{}, nil))
	job.Delivery.User = "bob>\r\nRCPT TO:<eve"
	wantStatus(t, testAgent(t, osFS{}).try(t, job), queue.Failed, "5.1.3", "control characters")
}

func TestLMTPAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"/run/lmtp": "unix /run/lmtp", "unix:/run/lmtp": "unix /run/lmtp", "h:24": "tcp h:24", "h": "tcp h:25",
		"[::1]:24": "tcp [::1]:24", "[::1]": "tcp [::1]:25", "::1": "tcp [::1]:25",
	} {
		network, addr, err := lmtpAddress(in)
		if got := network + " " + addr; err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestLMTPAcceptedText(t *testing.T) {
	for in, want := range map[string][2]string{
		"2.1.5 saved": {"2.1.5", "saved"}, "saved it": {"2.0.0", "saved it"}, "": {"2.0.0", "Delivered"},
		"2.1 x": {"2.0.0", "2.1 x"}, "4.1.1 x": {"2.0.0", "x"}, "a\nb": {"2.0.0", "a b"},
		"a\n2.1.5 b": {"2.1.5", "a b"}, "2.1.5 a\n2.1.5 b": {"2.1.5", "a b"}, "2.1.9999 a": {"2.0.0", "2.1.9999 a"},
	} {
		st := lmtpAccepted("h", in)
		if got := [2]string{st.enhanced, st.text}; got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
