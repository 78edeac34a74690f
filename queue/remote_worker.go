package queue

import (
	"context"
	"time"

	"tabard/internal/rpc"
)

// takeGrace is how much longer than the queue a worker waits for an answer.
const takeGrace = 30 * time.Second

// takeBackWait bounds what a worker that is about to stop waits for.
const takeBackWait = time.Second

// NewRemoteWorker returns the worker behind a connection that the queue serves.
// Calls of Take wait for each other.
func NewRemoteWorker(c rpc.Caller) Worker {
	return &remoteWorker{caller: c, turn: make(chan struct{}, 1)}
}

type remoteWorker struct {
	caller rpc.Caller
	turn   chan struct{}
	seen   uint64 // the last answer with jobs; by turn
}

// Take implements Worker.
func (w *remoteWorker) Take(ctx context.Context, limit int) ([]Job, error) {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		reply, err := w.take(ctx, limit)
		if err != nil {
			if ctx.Err() != nil {
				w.takeBack(ctx)
			}
			return nil, err
		}
		if w.seen = reply.Seq; len(reply.Jobs) > 0 {
			return fromWireJobs(reply.Jobs, reply.Paused), nil
		}
	}
}

func (w *remoteWorker) take(ctx context.Context, limit int) (takeReply, error) {
	ctx, cancel := context.WithTimeout(ctx, takeWait+takeGrace)
	defer cancel()
	return rpc.Invoke[takeRequest, takeReply](ctx, w.caller, "Worker.Take", takeRequest{Max: limit, Ack: w.seen})
}

// takeBack has the queue take back jobs that it gave when nobody waited for them
// any more: this worker may never take again, yet live on for long.
func (w *remoteWorker) takeBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackWait)
	defer cancel()
	// Without an answer they are due again when the worker ends.
	_, _ = rpc.Invoke[uint64, rpc.None](ctx, w.caller, "Worker.TakeBack", w.seen)
}

// Body implements Worker.
func (w *remoteWorker) Body(ctx context.Context, id MessageID, offset int64, limit int) ([]byte, error) {
	return rpc.Invoke[bodyRequest, []byte](ctx, w.caller, "Worker.Body", bodyRequest{ID: int64(id), Offset: offset, Max: limit})
}

// Done implements Worker.
func (w *remoteWorker) Done(ctx context.Context, results []Result) error {
	for wire := toWireResults(results); len(wire) > 0; {
		n, size := 0, 0
		for n < len(wire) && n < wireResults && size < wireBytes {
			size += 64 + len(wire[n].Text) + len(wire[n].Remote) + len(wire[n].Enhanced)
			n++
		}
		if _, err := rpc.Invoke[[]wireResult, rpc.None](ctx, w.caller, "Worker.Done", wire[:n]); err != nil {
			return err
		}
		wire = wire[n:]
	}
	return nil
}
