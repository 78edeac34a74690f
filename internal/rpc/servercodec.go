package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	netrpc "net/rpc"
	"syscall"
)

// ReadRequestHeader waits for room in flight and takes the next call off the
// connection.
func (c *serverCodec) ReadRequestHeader(r *netrpc.Request) error {
	for {
		in, err := c.read()
		if err != nil {
			c.end(err)
			return io.EOF // net/rpc stops reading, and says nothing
		}
		if in != nil {
			c.next = in
			r.Seq, r.ServiceMethod = in.seq, in.method
			return nil
		}
	}
}

// read takes one frame off the connection. It returns nil for a cancel frame.
func (c *serverCodec) read() (*inflight, error) {
	n, err := c.in.length()
	if err != nil {
		return nil, err
	}
	if !c.enter(n) {
		return nil, net.ErrClosed
	}
	in, err := c.admit(n)
	if in == nil {
		c.gate.leave(n)
	}
	return in, err
}

// enter waits for room for n more bytes in flight. While it waits nothing is
// read, so the end of the connection has to be looked for.
func (c *serverCodec) enter(n int) bool {
	if c.gate.try(n) {
		return true
	}
	stop := watchHangup(c.conn, func() { c.fail(io.ErrUnexpectedEOF) })
	defer stop()
	return c.gate.wait(n)
}

// admit reads a payload of n bytes. A call joins those in flight.
func (c *serverCodec) admit(n int) (*inflight, error) {
	p, err := c.in.borrow(n) // until the argument is decoded, before the next frame
	if err != nil {
		return nil, err
	}
	req, err := parseRequest(p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.calls[req.seq]
	if req.cancel {
		if known != nil { // else its answer is on the way
			known.cancel()
		}
		return nil, nil
	}
	if known != nil {
		return nil, fmt.Errorf("%w: call %d is in flight already", errFrame, req.seq)
	}
	in := &inflight{conn: c, seq: req.seq, method: req.method, body: req.body, size: n}
	if req.timeout > 0 {
		in.ctx, in.cancel = context.WithTimeout(c.ctx, req.timeout)
	} else {
		in.ctx, in.cancel = context.WithCancel(c.ctx)
	}
	c.calls[in.seq] = in
	return in, nil
}

// ReadRequestBody decodes the argument; one that does not decode ends the
// connection. A nil body is a call to a method that does not exist. Decoding
// here, and not in the handler, saves each new goroutine the growth of its stack.
func (c *serverCodec) ReadRequestBody(body any) error {
	in := c.next
	c.next = nil
	if b, ok := body.(binder); ok {
		return b.bind(in)
	}
	return nil
}

// WriteResponse sends an answer and makes room for another call.
func (c *serverCodec) WriteResponse(r *netrpc.Response, body any) error {
	c.mu.Lock()
	in := c.calls[r.Seq]
	delete(c.calls, r.Seq)
	c.mu.Unlock()
	in.cancel()
	defer c.gate.leave(in.size)
	if r.Error != "" {
		code, text := splitCode(r.Error)
		return c.out.Add(func(b []byte) []byte { return appendAnswer(b, r.Seq, code, truncate(text, maxErrorText)) })
	}
	var result []byte
	if e, ok := body.(encoded); ok && e.encoded() != nil {
		defer c.coding.release(e.encoded())
		result = e.encoded().Bytes()
	}
	return c.out.Add(func(b []byte) []byte { return appendAnswer(b, r.Seq, codeOK, result) })
}

// end notes why reading ended, and tells the handlers. What they still answer
// is sent if the peer has not gone altogether.
func (c *serverCodec) end(err error) {
	if err == io.EOF {
		err = nil
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.cancel()
	c.gate.close()
}

// fail closes the connection for the reason err; the first reason stays.
func (c *serverCodec) fail(err error) {
	c.mu.Lock()
	if c.err == nil && !c.closed {
		c.err = err
	}
	c.mu.Unlock()
	c.cancel()
	c.gate.close()
	c.out.Fail(err)
	c.conn.Close()
}

// Close is called by net/rpc once every handler has returned.
func (c *serverCodec) Close() error {
	c.out.Close()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	return c.conn.Close()
}

// reason says why the connection ended; nil when the peer closed it.
func (c *serverCodec) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, gone := range []error{io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(c.err, gone) {
			return nil
		}
	}
	if c.err == nil {
		return nil
	}
	return fmt.Errorf("rpc connection: %w", c.err)
}
