package queue

import (
	"context"
	"sync/atomic"
)

// counters are what Stats shows.
type counters struct {
	messages, envelopes, accepted                                    atomic.Int64
	enqueued, delivered, deferred, failed, expired, dropped, bounced atomic.Int64
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
func (q *Queue) Stats(context.Context) (Stats, error) {
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
