package queue

import (
	"context"
	"sync/atomic"
)

// counters are what Stats shows.
type counters struct {
	messages, envelopes, accepted                                    atomic.Int64
	enqueued, delivered, deferred, failed, expired, dropped, bounced atomic.Int64

	done chan struct{} // closed when what was there at the start is in messages and envelopes
	err  error         // why it is not; set before done is closed
}

// countStored adds what was there before this start, beside all else: it takes half a
// second for a million messages, and new mail need not wait for that.
func (q *Queue) countStored() error {
	count, err := q.store.Count(q.ctx)
	if err != nil {
		return err
	}
	c := &q.count
	c.done = make(chan struct{})
	q.goWhile(func() {
		messages, envelopes, err := count()
		c.messages.Add(messages)
		c.envelopes.Add(envelopes)
		if c.err = err; err != nil && q.ctx.Err() == nil {
			q.log.Error("what is in the queue is not counted", "error", err)
		}
		close(c.done)
	})
	return nil
}

// await waits until what was there at the start is counted.
func (c *counters) await(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// removed notes what a durable change took away.
func (c *counters) removed(change *Change) {
	if len(change.Remove) > 0 {
		c.envelopes.Add(-int64(change.Affected))
		c.messages.Add(-int64(change.Messages))
	}
}

func (c *counters) result(e *event) {
	switch e.result.Outcome {
	case Delivered:
		c.delivered.Add(1)
	case Deferred:
		c.deferred.Add(1)
	default:
		c.failed.Add(1)
	}
}

// Stats implements Admin.
func (q *Queue) Stats(ctx context.Context) (Stats, error) {
	if err := q.count.await(ctx); err != nil {
		return Stats{}, err
	}
	q.active.mu.Lock()
	leased := q.active.leased
	q.active.mu.Unlock()
	c := &q.count
	fault := ""
	if err := q.store.Writable(); err != nil {
		fault = err.Error()
	}
	return Stats{
		Fault:    fault,
		Messages: c.messages.Load(), Envelopes: c.envelopes.Load(), InFlight: int64(leased),
		Enqueued: c.enqueued.Load(), Delivered: c.delivered.Load(), Deferred: c.deferred.Load(),
		Failed: c.failed.Load(), Expired: c.expired.Load(), Removed: c.dropped.Load(), Bounced: c.bounced.Load(),
	}, nil
}
