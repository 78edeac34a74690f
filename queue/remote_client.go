package queue

import (
	"context"
	"fmt"
	"time"

	"tabard/internal/rpc"
)

// remoteWait bounds one call about a part of a message.
const remoteWait = 5 * time.Minute

// NewRemote returns the queue behind a connection that ServeClient serves.
func NewRemote(c rpc.Caller) Client { return &remoteClient{caller: c} }

type remoteClient struct {
	caller    rpc.Caller
	accepting accepting
}

// Enqueue implements Client.
func (c *remoteClient) Enqueue(ctx context.Context, s Submission, body []byte) error {
	if len(body) > InlineBody {
		return fmt.Errorf("%w: body of %d bytes, want Create", rpc.ErrTooLarge, len(body))
	}
	return (&remoteWriter{caller: c.caller, buf: body}).Commit(ctx, s)
}

// enqueue sends a message that one call carries.
func (c *remoteClient) enqueue(ctx context.Context, s Submission, wire []wireRecipient, body []byte) error {
	_, err := rpc.Invoke[enqueueRequest, rpc.None](ctx, c.caller, "Queue.Enqueue",
		enqueueRequest{Message: toWireMessage(&s.Message), Recipients: wire, Body: body, Spent: s.Spent.pack(StepAccept, inboundEnd)})
	return err
}

// Create implements Client. A message that turns out to be small is one call.
func (c *remoteClient) Create(ctx context.Context) (Writer, error) {
	return &remoteWriter{caller: c.caller}, ctx.Err()
}

// remoteWriter keeps less than one piece, and sends the rest in pieces as it comes.
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
	for rest := p; len(rest) > 0; {
		if len(w.buf) == 0 && len(rest) >= w.worth() {
			n := min(len(rest), wireChunk)
			if err := w.now(rest[:n]); err != nil {
				return 0, err
			}
			rest = rest[n:]
			continue
		}
		n := min(len(rest), wireChunk-len(w.buf))
		w.buf = append(w.buf, rest[:n]...)
		rest = rest[n:]
		if len(w.buf) < wireChunk {
			break
		}
		if err := w.now(w.buf); err != nil {
			return 0, err
		}
		w.buf = w.buf[:0]
	}
	return len(p), w.err
}

// worth is how many bytes are sent from where they are: with fewer it is better to
// wait for more, and at first all may fit into one call.
func (w *remoteWriter) worth() int {
	if !w.begun {
		return wireChunk
	}
	return wireChunk / 8
}

// now sends a piece for Write, which has no context.
func (w *remoteWriter) now(piece []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), remoteWait)
	defer cancel()
	return w.send(ctx, piece)
}

// send sends a body's next bytes.
func (w *remoteWriter) send(ctx context.Context, rest []byte) error {
	if w.err == nil && !w.begun {
		w.id, w.err = rpc.Invoke[rpc.None, int64](ctx, w.caller, "Queue.Create", rpc.None{})
		w.begun = w.err == nil
	}
	for w.err == nil && len(rest) > 0 {
		piece := rest[:min(len(rest), wireChunk)]
		_, w.err = rpc.Invoke[writeRequest, rpc.None](ctx, w.caller, "Queue.Write",
			writeRequest{Writer: w.id, Offset: w.sent, Data: piece})
		w.sent += int64(len(piece))
		rest = rest[len(piece):]
	}
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
	wire := toWireRecipients(s.Recipients)
	if !w.begun && fitting(wire, wireBytes-len(w.buf)) == len(wire) {
		w.ended = true
		return (&remoteClient{caller: w.caller}).enqueue(ctx, s, wire, w.buf)
	}
	if err := w.finish(ctx, wire); err != nil {
		w.Abort()
		return err
	}
	w.ended = true
	_, err := rpc.Invoke[commitRequest, rpc.None](ctx, w.caller, "Queue.Commit",
		commitRequest{Writer: w.id, Message: toWireMessage(&s.Message), Spent: s.Spent.pack(StepAccept, inboundEnd)})
	return err
}

// fitting is how many recipients one call carries in so many bytes.
func fitting(wire []wireRecipient, bytes int) int {
	n := 0
	for n < len(wire) && n < wireRecipients && bytes >= wire[n].weight() {
		bytes -= wire[n].weight()
		n++
	}
	return n
}

// finish sends what Commit does not carry.
func (w *remoteWriter) finish(ctx context.Context, wire []wireRecipient) error {
	if err := w.send(ctx, w.buf); err != nil {
		return err
	}
	for len(wire) > 0 {
		n := max(1, fitting(wire, wireBytes))
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
