// Package load sends mail to an SMTP server from many sessions at once and
// counts what the server acknowledged. It is the generator behind bench and the
// crash test: it speaks raw SMTP so that it costs little beside the server.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options says what to send.
type Options struct {
	Addr       string
	Sessions   int                  // connections at once
	PerConn    int                  // messages per connection; 0: as many as there are
	Messages   int                  // in all; 0: until ctx ends
	Size       int                  // of a message, bytes, header included
	StartTLS   *tls.Config          // nil: plain
	User       string               // AUTH PLAIN after STARTTLS when not empty
	Password   string               //
	From       string               // reverse-path
	To         string               // recipient; a %d in it becomes the message's number
	Rcpt       func(n int64) string // recipient of a message by its number, instead of To; nil: To
	Timeout    time.Duration        // of one reply; 0: 30 s
	Handshakes bool                 // connect, STARTTLS, QUIT; no message
	// Acked is called with the number of every message that got a 250 after its
	// final dot. May be nil.
	Acked func(n int64)
	// Retry makes a session go on after an error (the server was killed),
	// instead of ending the run. Errors are counted either way.
	Retry bool
}

// Result is what a run came to.
type Result struct {
	Sent    int64 // final dots written
	Acked   int64 // 250 replies to them
	Errors  int64 // sessions that ended in an error
	Resumed int64 // TLS handshakes that resumed a session
	Took    time.Duration
	latency []time.Duration
}

// Rate returns acknowledged messages (or handshakes) per second.
func (r Result) Rate() float64 { return float64(r.Acked) / r.Took.Seconds() }

// Percentile returns the time from the final dot to the 250 that p percent of
// the messages did not exceed.
func (r Result) Percentile(p float64) time.Duration {
	if len(r.latency) == 0 {
		return 0
	}
	return r.latency[min(len(r.latency)-1, int(float64(len(r.latency))*p/100))]
}

type runner struct {
	Options
	next, sent, acked, errs, resumed atomic.Int64
	mu                               sync.Mutex
	latency                          []time.Duration
	first                            error
	padding                          string
}

// Run sends until the messages are out or ctx ends. Without Retry, the first
// error ends the run and is returned with the counts so far.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	r := &runner{Options: o, padding: Body(o.Size)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	for range o.Sessions {
		wg.Go(func() {
			if err := r.session(ctx); err != nil {
				r.fail(err)
				cancel()
			}
		})
	}
	wg.Wait()
	slices.Sort(r.latency)
	res := Result{Sent: r.sent.Load(), Acked: r.acked.Load(), Errors: r.errs.Load(), Resumed: r.resumed.Load(), Took: time.Since(start), latency: r.latency}
	return res, r.first
}

func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == nil {
		r.first = err
	}
}

// session opens connections until there is nothing left to send.
func (r *runner) session(ctx context.Context) error {
	for ctx.Err() == nil {
		more, err := r.connection(ctx)
		if err != nil && ctx.Err() == nil {
			r.errs.Add(1)
			if !r.Retry {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		if !more {
			return nil
		}
	}
	return nil
}

// claim reserves the number of the next message.
func (r *runner) claim() (int64, bool) {
	n := r.next.Add(1)
	return n, r.Messages == 0 || n <= int64(r.Messages)
}

type client struct {
	conn    net.Conn
	br      *bufio.Reader
	timeout time.Duration
}

func (r *runner) connection(ctx context.Context) (more bool, err error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", r.Addr)
	if err != nil {
		return true, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() { _ = raw.Close() }()
	c := &client{conn: raw, br: bufio.NewReaderSize(raw, 4096), timeout: r.Timeout}
	if err := r.open(c); err != nil {
		return true, err
	}
	more = true
	for i := 0; r.Handshakes && i < 1; i++ {
		if _, more = r.claim(); more {
			r.acked.Add(1)
		}
	}
	for i := 0; !r.Handshakes && (r.PerConn == 0 || i < r.PerConn) && ctx.Err() == nil; i++ {
		n, ok := r.claim()
		if !ok {
			more = false
			break
		}
		if err := r.message(c, n); err != nil {
			return true, err
		}
	}
	_, err = c.cmd("221", "QUIT\r\n")
	if !more {
		err = nil
	}
	return more, err
}

func (r *runner) open(c *client) error {
	if err := c.expect("220"); err != nil {
		return err
	}
	if _, err := c.cmd("250", "EHLO load.example\r\n"); err != nil {
		return err
	}
	if r.StartTLS != nil {
		if _, err := c.cmd("220", "STARTTLS\r\n"); err != nil {
			return err
		}
		tc := tls.Client(c.conn, r.StartTLS)
		if err := tc.Handshake(); err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		if tc.ConnectionState().DidResume {
			r.resumed.Add(1)
		}
		c.conn, c.br = tc, bufio.NewReaderSize(tc, 4096)
		if _, err := c.cmd("250", "EHLO load.example\r\n"); err != nil {
			return err
		}
	}
	if r.User == "" {
		return nil
	}
	token := base64.StdEncoding.EncodeToString([]byte("\x00" + r.User + "\x00" + r.Password))
	_, err := c.cmd("235", "AUTH PLAIN "+token+"\r\n")
	return err
}

func (r *runner) message(c *client, n int64) error {
	to := r.To
	if r.Rcpt != nil {
		to = r.Rcpt(n)
	} else if strings.Contains(to, "%d") {
		to = fmt.Sprintf(to, n)
	}
	for _, step := range [][2]string{
		{"250", "MAIL FROM:<" + r.From + ">\r\n"}, {"250", "RCPT TO:<" + to + ">\r\n"}, {"354", "DATA\r\n"},
	} {
		if _, err := c.cmd(step[0], step[1]); err != nil {
			return err
		}
	}
	body := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: load %d\r\nX-Load-Number: %d\r\n\r\n%s.\r\n", r.From, to, n, n, r.padding)
	start := time.Now()
	r.sent.Add(1)
	if _, err := c.cmd("250", body); err != nil {
		return err
	}
	took := time.Since(start)
	r.acked.Add(1)
	if r.Acked != nil {
		r.Acked(n)
	}
	r.mu.Lock()
	r.latency = append(r.latency, took)
	r.mu.Unlock()
	return nil
}

func (c *client) cmd(code, line string) (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c.conn, line); err != nil {
		return "", err
	}
	return c.reply(code)
}

func (c *client) expect(code string) error {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.reply(code)
	return err
}

func (c *client) reply(code string) (string, error) {
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 {
			return "", errors.New("short reply")
		}
		if line[3] == '-' {
			continue
		}
		if string(line[:len(code)]) != code {
			return "", fmt.Errorf("got %q, want %s", strings.TrimSpace(string(line)), code)
		}
		return string(line), nil
	}
}

// Body returns the body of every message of about size bytes, header included:
// who receives it can tell whether it is whole.
func Body(size int) string {
	const line = "The quick brown fox jumps over the lazy dog, and then does it again.\r\n"
	return strings.Repeat(line, max(1, (size-150)/len(line)))
}
