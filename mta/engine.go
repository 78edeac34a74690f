package mta

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"
)

// engineConn is what go-smtp's client talks to: a net.Conn over an opened link.
// It answers greeting and EHLO itself, from what was said while the session was
// opened, and hands on every other reply as one clean line after it was read
// whole by readReply. So no byte of a server reaches the client unchecked, and
// the reply can be looked at in full.
type engineConn struct {
	link    *link
	out     *bufio.Writer
	pending []byte  // what the client has yet to read
	body    bool    // a message body is being written
	replies []reply // since the exchange began
	err     error   // the connection is of no more use
}

// offered are the extensions that the client is told of: those whose parameters
// it is to send.
var offered = [...]string{"SIZE", "8BITMIME", "SMTPUTF8", "DSN"}

func newEngineConn(l *link) *engineConn {
	c := &engineConn{link: l, pending: []byte("220 ready\r\n")}
	c.out = bufio.NewWriterSize(blockWriter{l}, 16<<10)
	return c
}

// blockWriter gives every write of its own a deadline.
type blockWriter struct{ link *link }

func (w blockWriter) Write(p []byte) (int, error) {
	if err := w.link.conn.SetWriteDeadline(time.Now().Add(w.link.timeouts.Block)); err != nil {
		return 0, err
	}
	return w.link.conn.Write(p)
}

// Read gives the client the next reply.
func (c *engineConn) Read(p []byte) (int, error) {
	if len(c.pending) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.pending)
	c.pending = c.pending[n:]
	return n, nil
}

func (c *engineConn) next() error {
	if c.err != nil {
		return c.err
	}
	if err := c.out.Flush(); err != nil {
		return c.fail(err)
	}
	r, err := readReply(c.link.in)
	if err != nil {
		return c.fail(err)
	}
	c.replies = append(c.replies, r)
	// The client needs the code; long texts are of no use to it.
	c.pending = fmt.Appendf(nil, "%d %.200s\r\n", r.code, r.lines[0])
	return nil
}

func (c *engineConn) fail(err error) error {
	if c.err == nil {
		c.err = plainError(err)
	}
	return c.err
}

// Write takes a command, or a piece of a body while one is written.
func (c *engineConn) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if !c.body && (bytes.HasPrefix(p, []byte("EHLO ")) || bytes.HasPrefix(p, []byte("LHLO "))) {
		c.pending = c.hello()
		return len(p), nil
	}
	if !c.body && c.link.in.Buffered() > 0 {
		// Answers and questions no longer belong together.
		return 0, c.fail(errUnsolicited)
	}
	n, err := c.out.Write(p)
	if err == nil && !c.body {
		err = c.out.Flush()
	}
	if err != nil {
		return n, c.fail(err)
	}
	return n, nil
}

func (c *engineConn) hello() []byte {
	var b strings.Builder
	for _, keyword := range offered {
		if params, ok := c.link.offers[keyword]; ok {
			fmt.Fprintf(&b, "250-%s\r\n", strings.TrimSpace(keyword+" "+firstWord(params)))
		}
	}
	return []byte("250-hello\r\n" + b.String() + "250 HELP\r\n")
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return fmt.Sprintf("%.20s", word)
}

// Close implements net.Conn.
func (c *engineConn) Close() error {
	c.fail(net.ErrClosed)
	c.link.close()
	return nil
}

// LocalAddr implements net.Conn.
func (c *engineConn) LocalAddr() net.Addr { return c.link.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *engineConn) RemoteAddr() net.Addr { return c.link.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *engineConn) SetDeadline(t time.Time) error { return c.link.conn.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *engineConn) SetReadDeadline(t time.Time) error { return c.link.conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *engineConn) SetWriteDeadline(t time.Time) error { return c.link.conn.SetWriteDeadline(t) }
