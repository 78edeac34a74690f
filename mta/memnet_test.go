package mta

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memConn is one end of a connection in memory that behaves as one of TCP does:
// writes are buffered, a close lets the other end read what is there, a reset
// does not, and deadlines hold. It waits in ways that a synctest bubble knows,
// so that hours of silence cost a test nothing.
type memConn struct {
	in, out *memPipe
	shut    chan struct{} // closed with this end
	once    sync.Once
}

// memPipe is one direction.
type memPipe struct {
	mu       sync.Mutex
	changed  *sync.Cond
	buf      []byte
	err      error // what a reader gets when buf is empty
	broken   error // what a writer gets
	deadline time.Time
	timer    *time.Timer
}

func newMemPipe() *memPipe {
	p := &memPipe{}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// memPair returns both ends of a new connection.
func memPair() (*memConn, *memConn) {
	a, b := newMemPipe(), newMemPipe()
	return &memConn{in: a, out: b, shut: make(chan struct{})}, &memConn{in: b, out: a, shut: make(chan struct{})}
}

func (p *memPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.buf) == 0 && p.err == nil && !p.late() {
		p.changed.Wait()
	}
	switch {
	case p.late():
		return 0, os.ErrDeadlineExceeded
	case len(p.buf) == 0:
		return 0, p.err
	}
	n := copy(b, p.buf)
	p.buf = p.buf[n:]
	return n, nil
}

func (p *memPipe) late() bool { return !p.deadline.IsZero() && !time.Now().Before(p.deadline) }

func (p *memPipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		return 0, p.broken
	}
	p.buf = append(p.buf, b...)
	p.changed.Broadcast()
	return len(b), nil
}

// end says what readers find when all is read, or at once, and writers.
func (p *memPipe) end(read, write error, discard bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = read
	}
	if p.broken == nil {
		p.broken = write
	}
	if discard {
		p.buf, p.err = nil, read
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.changed.Broadcast()
}

func (p *memPipe) until(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.deadline = t
	if !t.IsZero() && p.err == nil {
		p.timer = time.AfterFunc(time.Until(t), func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.changed.Broadcast()
		})
	}
	p.changed.Broadcast()
}

// Read implements net.Conn.
func (c *memConn) Read(b []byte) (int, error) { return c.in.read(b) }

// Write implements net.Conn.
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }

// Close implements net.Conn.
func (c *memConn) Close() error {
	c.once.Do(func() {
		c.out.end(io.EOF, net.ErrClosed, false)
		c.in.end(net.ErrClosed, broken("write", syscall.EPIPE), true)
		close(c.shut)
	})
	return nil
}

// reset closes so that the other end loses what it has not read.
func (c *memConn) reset() {
	c.once.Do(func() {
		c.out.end(broken("read", syscall.ECONNRESET), net.ErrClosed, true)
		c.in.end(net.ErrClosed, broken("write", syscall.ECONNRESET), true)
		close(c.shut)
	})
}

func broken(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, err)}
}

// LocalAddr implements net.Conn.
func (c *memConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1025} }

// RemoteAddr implements net.Conn.
func (c *memConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 3), Port: 25} }

// SetDeadline implements net.Conn.
func (c *memConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.until(t)
	return nil
}

// SetWriteDeadline implements net.Conn; no write ever waits.
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
