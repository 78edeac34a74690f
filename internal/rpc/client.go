package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	netrpc "net/rpc"
	"sync"
	"time"

	"tabard/internal/coalesce"
)

// Client makes calls over one connection. It is safe for concurrent use.
type Client struct {
	options
	rpc    *netrpc.Client
	coding *Coding
	codec  *clientCodec
	slots  chan struct{}
	pieces chan struct{} // see Bulk
}

// errNotSent marks an ErrUnavailable of a call that the peer cannot have seen.
var errNotSent = errors.New("not sent")

// NewClient makes calls over conn, which it owns from now on.
func NewClient(conn net.Conn, opts ...Option) *Client {
	o := newOptions(opts)
	coding, err := NewCoding()
	codec := newClientCodec(conn, o.maxFrame)
	if err != nil {
		codec.fail(err)
	}
	return &Client{
		options: o, coding: coding, codec: codec,
		rpc:    netrpc.NewClientWithCodec(codec),
		slots:  make(chan struct{}, max(o.maxInFlight, 1)),
		pieces: make(chan struct{}, maxBulk),
	}
}

// Close ends the connection; calls in flight return ErrUnavailable.
func (c *Client) Close() error {
	c.codec.fail(net.ErrClosed)
	return nil
}

// Done is closed when the connection is lost.
func (c *Client) Done() <-chan struct{} { return c.codec.lost }

// Call implements Caller. When ctx ends first, the peer is told to give up.
func (c *Client) Call(ctx context.Context, method string, args, reply any) error {
	if c.coding == nil || len(method) > maxMethod {
		return fmt.Errorf("%w: cannot call %q", ErrInvalid, truncate(method, maxMethod))
	}
	end, err := c.bulk(ctx, method, args)
	if err != nil {
		return err
	}
	defer end()
	body, err := c.coding.encode(args)
	if err != nil {
		return fmt.Errorf("%s: encode request: %w", method, err)
	}
	if n := callSize(method, body.Bytes()); n > c.maxFrame {
		return fmt.Errorf("%s: request of %d bytes: %w", method, n, ErrTooLarge)
	}
	result, err := c.exchange(ctx, method, body)
	if err != nil {
		return err
	}
	if err := c.coding.Unmarshal(result, reply); err != nil {
		return fmt.Errorf("%s: decode answer: %w", method, err)
	}
	return nil
}

// exchange sends one encoded request, which it takes, and waits for its encoded result.
func (c *Client) exchange(ctx context.Context, method string, body *bytes.Buffer) ([]byte, error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	case <-c.codec.lost:
		return nil, fmt.Errorf("%s: %w: %w", method, ErrUnavailable, errNotSent)
	}
	out := &outgoing{body: body.Bytes()}
	if err := out.until(ctx); err != nil {
		<-c.slots
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	call := c.rpc.Go(method, out, &out.result, make(chan *netrpc.Call, 1))
	c.coding.release(body) // Go has had it written
	select {
	case <-call.Done:
		<-c.slots
		return out.result, callError(method, call.Error)
	case <-ctx.Done():
		c.codec.cancel(out.seq)
		go func() { // the slot stays taken for as long as the peer works
			<-call.Done
			<-c.slots
		}()
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// callError turns an error of net/rpc into one of this package.
func callError(method string, err error) error {
	var remote netrpc.ServerError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &remote):
		return remoteError(string(remote))
	case errors.Is(err, netrpc.ErrShutdown):
		return fmt.Errorf("%s: %w: %w", method, ErrUnavailable, errNotSent)
	}
	return fmt.Errorf("%s: %w: %w", method, ErrUnavailable, err)
}

// outgoing is what a client hands to net/rpc as the argument of a call.
type outgoing struct {
	body    []byte
	timeout time.Duration
	seq     uint64 // set when it is sent
	result  []byte
}

// until sets the timeout that travels along from the deadline of ctx.
func (o *outgoing) until(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	if o.timeout = time.Until(deadline); o.timeout <= 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// clientCodec is net/rpc's view of one connection.
type clientCodec struct {
	conn net.Conn
	in   *frameReader
	out  *coalesce.Writer
	next answer // whose header was read, and whose body comes next

	lost chan struct{}
	once sync.Once
}

func newClientCodec(conn net.Conn, maxFrame int) *clientCodec {
	// No limit: each call in flight adds at most one frame and one cancel, and
	// waiting here would keep callers past their deadlines.
	return &clientCodec{conn: conn, in: newFrameReader(conn, maxFrame), out: coalesce.NewWriter(conn, 0, keepBuffer), lost: make(chan struct{})}
}

// WriteRequest sends a call.
func (c *clientCodec) WriteRequest(r *netrpc.Request, body any) error {
	o, ok := body.(*outgoing)
	if !ok {
		return fmt.Errorf("%w: %T", ErrInvalid, body)
	}
	o.seq = r.Seq
	err := c.out.Add(func(b []byte) []byte { return appendCall(b, r.Seq, o.timeout, r.ServiceMethod, o.body) })
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	return nil
}

// cancel tells the peer that nobody waits for a call any more.
func (c *clientCodec) cancel(seq uint64) {
	// A connection that is lost has ended the call already.
	_ = c.out.Add(func(b []byte) []byte { return appendCancel(b, seq) })
}

// ReadResponseHeader waits for the next answer.
func (c *clientCodec) ReadResponseHeader(r *netrpc.Response) error {
	a, err := c.read()
	if err != nil {
		c.fail(err)
		// Wrapped, because net/rpc confuses a plain io.EOF with its own end,
		// and with it calls that were sent with calls that were not.
		return fmt.Errorf("connection lost: %w", err)
	}
	c.next = a
	r.Seq = a.seq
	if a.code != codeOK {
		r.Error = joinCode(a.code, truncate(string(a.body), maxErrorText))
	}
	return nil
}

func (c *clientCodec) read() (answer, error) {
	n, err := c.in.length()
	if err != nil {
		return answer{}, err
	}
	p, err := c.in.payload(n)
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(p)
}

// ReadResponseBody gives the encoded result to the caller, who decodes it.
func (c *clientCodec) ReadResponseBody(body any) error {
	if result, ok := body.(*[]byte); ok {
		*result = c.next.body
	}
	c.next = answer{}
	return nil
}

// fail closes the connection; net/rpc's reader then ends the calls in flight.
func (c *clientCodec) fail(err error) {
	c.once.Do(func() { close(c.lost) })
	c.out.Fail(err)
	c.conn.Close()
}

// Close implements netrpc.ClientCodec.
func (c *clientCodec) Close() error {
	c.fail(net.ErrClosed)
	return nil
}
