package rpc

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
)

// None is the request or the answer of a method that has none.
type None struct{}

// Call is the argument of a served method, in the form that net/rpc wants:
//
//	func (s *inbound) Sign(c *rpc.Call[lookup.SignRequest], r *rpc.Reply[[]byte]) error {
//		return rpc.Do(c, r, s.svc.Sign)
//	}
type Call[T any] struct {
	in  *inflight
	arg T
}

// Reply is the result of a served method; see Call.
type Reply[T any] struct {
	body *bytes.Buffer
	_    [0]T
}

// binder and encoded let the codec reach into any Call and Reply.
type binder interface{ bind(*inflight) error }
type encoded interface{ encoded() *bytes.Buffer }

func (c *Call[T]) bind(in *inflight) error {
	c.in = in
	return in.decode(&c.arg)
}
func (r *Reply[T]) encoded() *bytes.Buffer { return r.body }

// Do serves one call with f. The context that f gets ends at the caller's
// deadline, when the caller gives up, or when the connection is lost. A panic in
// f is logged and answered as an error.
func Do[Req, Resp any](c *Call[Req], r *Reply[Resp], f func(context.Context, Req) (Resp, error)) (err error) {
	in := c.in
	defer func() {
		if p := recover(); p != nil {
			in.conn.log.Error("rpc handler panicked", "method", in.method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = coded{fmt.Errorf("%s: internal error", in.method)}
		}
	}()
	resp, err := f(in.ctx, c.arg)
	if err != nil {
		return coded{err}
	}
	if r.body, err = in.encode(resp); err != nil {
		return coded{err}
	}
	return nil
}

// inflight is a request that waits for its answer.
type inflight struct {
	conn   *serverCodec
	ctx    context.Context
	cancel context.CancelFunc
	seq    uint64
	method string
	body   []byte
	size   int
}

func (in *inflight) decode(v any) error {
	body := in.body
	in.body = nil
	if err := in.conn.coding.Unmarshal(body, v); err != nil {
		err = fmt.Errorf("%w: %s: %w", ErrInvalid, in.method, err)
		in.conn.fail(err)
		return err
	}
	return nil
}

func (in *inflight) encode(v any) (*bytes.Buffer, error) {
	body, err := in.conn.coding.encode(v)
	if err != nil {
		return nil, fmt.Errorf("%s: encode answer: %w", in.method, err)
	}
	if answerHead+body.Len() > in.conn.maxFrame {
		return nil, fmt.Errorf("%s: answer of %d bytes: %w", in.method, body.Len(), ErrTooLarge)
	}
	return body, nil
}
