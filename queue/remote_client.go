package queue

import (
	"context"
	"time"

	"tabard/internal/rpc"
)

// remoteWait bounds one call about a part of a message.
const remoteWait = 5 * time.Minute

// NewRemote returns the queue behind a connection that ServeClient serves.
func NewRemote(c rpc.Caller) Client { return &remoteClient{c} }

type remoteClient struct{ caller rpc.Caller }

// Enqueue implements Client.
func (c *remoteClient) Enqueue(ctx context.Context, s Submission, body []byte) error {
	wire := toWireRecipients(s.Recipients)
	size := len(body)
	for i := range wire {
		size += wire[i].weight()
	}
	if len(wire) > wireRecipients || size > wireBytes {
		w := &remoteWriter{caller: c.caller, buf: body}
		return w.Commit(ctx, s)
	}
	_, err := rpc.Invoke[enqueueRequest, rpc.None](ctx, c.caller, "Queue.Enqueue",
		enqueueRequest{Message: toWireMessage(&s.Message), Recipients: wire, Body: body})
	return err
}

// Create implements Client. A message that turns out to be small is one call.
func (c *remoteClient) Create(ctx context.Context) (Writer, error) {
	return &remoteWriter{caller: c.caller}, ctx.Err()
}

// remoteWriter keeps up to InlineBody bytes, and sends more in pieces.
type remoteWriter struct {
	caller rpc.Caller
	buf    []byte
	begun  bool
	id     int64
	sent   int64
	err    error
	ended  bool
}

// Write implements Writer.
func (w *remoteWriter) Write(p []byte) (int, error) {
	if w.ended {
		return 0, errEnded
	}
	for written := 0; ; {
		n := min(len(p)-written, InlineBody-len(w.buf))
		w.buf = append(w.buf, p[written:written+n]...)
		if written += n; written == len(p) {
			return len(p), w.err
		}
		ctx, cancel := context.WithTimeout(context.Background(), remoteWait)
		err := w.flush(ctx)
		cancel()
		if err != nil {
			return 0, err
		}
	}
}

// flush sends what is kept.
func (w *remoteWriter) flush(ctx context.Context) error {
	if w.err == nil && !w.begun {
		w.id, w.err = rpc.Invoke[rpc.None, int64](ctx, w.caller, "Queue.Create", rpc.None{})
		w.begun = w.err == nil
	}
	for w.err == nil && len(w.buf) > 0 {
		piece := w.buf[:min(len(w.buf), wireChunk)]
		_, w.err = rpc.Invoke[writeRequest, rpc.None](ctx, w.caller, "Queue.Write",
			writeRequest{Writer: w.id, Offset: w.sent, Data: piece})
		w.sent += int64(len(piece))
		w.buf = w.buf[len(piece):]
	}
	w.buf = nil
	return w.err
}

// Commit implements Writer.
func (w *remoteWriter) Commit(ctx context.Context, s Submission) error {
	if w.ended {
		return errEnded
	}
	if w.err != nil {
		w.Abort()
		return w.err
	}
	if !w.begun && len(s.Recipients) <= wireRecipients && len(w.buf) <= InlineBody {
		w.ended = true
		return (&remoteClient{w.caller}).Enqueue(ctx, s, w.buf)
	}
	if err := w.finish(ctx, s.Recipients); err != nil {
		w.Abort()
		return err
	}
	w.ended = true
	_, err := rpc.Invoke[commitRequest, rpc.None](ctx, w.caller, "Queue.Commit",
		commitRequest{Writer: w.id, Message: toWireMessage(&s.Message)})
	return err
}

// finish sends what Commit does not carry.
func (w *remoteWriter) finish(ctx context.Context, list []Envelope) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	for wire := toWireRecipients(list); len(wire) > 0; {
		n, size := 0, 0
		for n < len(wire) && n < wireRecipients && (n == 0 || size+wire[n].weight() <= wireBytes) {
			size += wire[n].weight()
			n++
		}
		if _, err := rpc.Invoke[recipientsRequest, rpc.None](ctx, w.caller, "Queue.Recipients",
			recipientsRequest{Writer: w.id, Recipients: wire[:n]}); err != nil {
			return err
		}
		wire = wire[n:]
	}
	return nil
}

// Abort implements Writer.
func (w *remoteWriter) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	w.buf = nil
	if !w.begun {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteWait)
	defer cancel()
	// When this fails, the connection has, and the queue aborts by itself.
	_, _ = rpc.Invoke[int64, rpc.None](ctx, w.caller, "Queue.Abort", w.id)
}
