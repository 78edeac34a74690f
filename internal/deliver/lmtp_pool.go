package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
)

// Bounds of the connections to LMTP servers.
const (
	lmtpKeep     = 10 * time.Second // an idle connection
	lmtpMessages = 1000             // per connection
	lmtpReply    = 64 << 10         // bytes of reply to one command
	lmtpDial     = 30 * time.Second
	lmtpQuit     = time.Second
	lmtpReset    = 10 * time.Second
)

var (
	// errBroken marks a connection that stands in the middle of a message.
	errBroken = errors.New("transfer broken off")
	// errGreeting marks a refusal that is not about a message.
	errGreeting = errors.New("greeting")
)

// lmtpPool keeps connections for further messages.
type lmtpPool struct {
	lhlo    string
	timeout time.Duration
	max     int // idle connections
	mu      sync.Mutex
	idle    []*lmtpConn
	closed  bool
}

// lmtpConn is one connection, used by one delivery at a time.
type lmtpConn struct {
	conn     net.Conn
	client   *smtp.Client
	key      string
	used     bool // taken from the pool
	messages int
	expiry   *time.Timer
}

func newLMTPPool(lhlo string, timeout time.Duration, limit int) *lmtpPool {
	return &lmtpPool{lhlo: lhlo, timeout: timeout, max: limit}
}

// lhloName is a host name fit for LHLO.
func lhloName(host string) string {
	if host == "" || address.CheckDomain(host) != nil {
		return "localhost"
	}
	ascii, err := address.ToASCII(host)
	if err != nil {
		return "localhost"
	}
	return ascii
}

// get returns an idle connection or a new one.
func (l *lmtpPool) get(ctx context.Context, network, addr string) (*lmtpConn, error) {
	key := network + " " + addr
	l.mu.Lock()
	for i := len(l.idle) - 1; i >= 0; i-- {
		if c := l.idle[i]; c.key == key {
			l.idle = append(l.idle[:i], l.idle[i+1:]...)
			l.mu.Unlock()
			c.expiry.Stop()
			c.used = true
			return c, nil
		}
	}
	l.mu.Unlock()
	return l.dial(ctx, network, addr, key)
}

func (l *lmtpPool) dial(ctx context.Context, network, addr, key string) (*lmtpConn, error) {
	dialer := net.Dialer{Timeout: min(lmtpDial, l.timeout)}
	raw, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	conn := &boundedConn{Conn: raw, timeout: l.timeout}
	client := smtp.NewClientLMTP(conn)
	client.CommandTimeout = l.timeout
	client.SubmissionTimeout = 2 * l.timeout
	if err := client.Hello(l.lhlo); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%w: %w", errGreeting, err)
	}
	return &lmtpConn{conn: raw, client: client, key: key}, nil
}

// put takes a connection back after a transaction that ended with err.
func (l *lmtpPool) put(c *lmtpConn, err error) {
	c.messages++
	if err != nil && !c.recover(err) {
		_ = c.conn.Close()
		return
	}
	l.mu.Lock()
	if l.closed || len(l.idle) >= l.max || c.messages >= lmtpMessages {
		l.mu.Unlock()
		c.quit()
		return
	}
	l.idle = append(l.idle, c)
	c.expiry = time.AfterFunc(lmtpKeep, func() { l.expire(c) })
	l.mu.Unlock()
}

// recover brings the dialogue back to its start after a refused transaction.
func (c *lmtpConn) recover(err error) bool {
	if _, ours := errors.AsType[refusal](err); ours {
		return true // nothing was sent
	}
	if !isReply(err) || isClosing(err) || errors.Is(err, errBroken) {
		return false
	}
	full := c.client.CommandTimeout
	c.client.CommandTimeout = min(full, lmtpReset)
	defer func() { c.client.CommandTimeout = full }()
	return c.client.Reset() == nil
}

// expire ends a connection that is still idle.
func (l *lmtpPool) expire(c *lmtpConn) {
	l.mu.Lock()
	found := false
	for i := range l.idle {
		if found = l.idle[i] == c; found {
			l.idle = append(l.idle[:i], l.idle[i+1:]...)
			break
		}
	}
	l.mu.Unlock()
	if found {
		c.quit()
	}
}

// close ends the idle connections; those in use end when they come back.
func (l *lmtpPool) close() {
	l.mu.Lock()
	idle := l.idle
	l.idle, l.closed = nil, true
	l.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range idle {
		c.expiry.Stop()
		wg.Go(c.quit)
	}
	wg.Wait()
}

// quit says goodbye, but does not wait long for the answer.
func (c *lmtpConn) quit() {
	c.client.CommandTimeout = lmtpQuit
	_ = c.client.Quit()
	_ = c.conn.Close()
}

// boundedConn gives every write a deadline, which go-smtp leaves out while it
// sends a message, and limits how much a server may say to one command.
type boundedConn struct {
	net.Conn
	timeout time.Duration
	mu      sync.Mutex
	heard   int
}

// Write implements net.Conn.
func (b *boundedConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	b.heard = 0
	b.mu.Unlock()
	if err := b.Conn.SetWriteDeadline(time.Now().Add(b.timeout)); err != nil {
		return 0, err
	}
	return b.Conn.Write(p)
}

// Read implements net.Conn.
func (b *boundedConn) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	b.mu.Lock()
	b.heard += n
	tooMuch := b.heard > lmtpReply
	b.mu.Unlock()
	if tooMuch {
		return 0, errTooMuch
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

var errTooMuch = errors.New("the server's reply is too long")
