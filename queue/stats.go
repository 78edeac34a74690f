package queue

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// counters are what Stats shows.
type counters struct {
	messages, envelopes                                              atomic.Int64 // see stored
	accepted                                                         atomic.Int64
	enqueued, delivered, deferred, failed, expired, dropped, bounced atomic.Int64

	tried chan struct{}         // closed when what was there at the start is in messages and envelopes, or fault is set
	fault atomic.Pointer[error] // why it is not; it is tried again
}

const (
	countPause = time.Second            // before a count that failed is tried again, and twice as long each time
	countMost  = time.Minute            // up to that
	countBegin = 100 * time.Millisecond // how long transactions may wait for a count to begin
)

// countStored adds what was there before this start, beside all else: it takes half a
// second for a million messages, and new mail need not wait for that.
func (q *Queue) countStored() error {
	count, err := q.store.Count(q.ctx)
	if err != nil {
		return err
	}
	q.count.tried = make(chan struct{})
	q.goWhile(func() {
		err := q.count.add(count)
		if err != nil {
			q.count.fault.Store(&err)
		}
		close(q.count.tried)
		if err != nil {
			q.countAgain(err)
		}
	})
	return nil
}

// add adds what a store counts.
func (c *counters) add(count func() (messages, envelopes int64, err error)) error {
	messages, envelopes, err := count()
	if err != nil {
		return err
	}
	c.messages.Add(messages)
	c.envelopes.Add(envelopes)
	return nil
}

// countAgain counts until that succeeds.
func (q *Queue) countAgain(err error) {
	for pause := countPause; ; pause = min(2*pause, countMost) {
		if q.ctx.Err() != nil {
			return
		}
		q.log.Error("what is in the queue is not counted, trying again", "error", err, "delay", pause)
		if !sleep(q.ctx, pause) {
			return
		}
		if err = q.recount(); err == nil {
			q.count.fault.Store(nil)
			q.log.Info("what is in the queue is counted", "messages", q.count.messages.Load(), "envelopes", q.count.envelopes.Load())
			return
		}
		q.count.fault.Store(&err)
	}
}

// recount counts what is there now, in place of what was there at the start. What was
// stored and removed since is in that already.
func (q *Queue) recount() error {
	ctx, cancel := context.WithCancel(q.ctx)
	defer cancel()
	c := &q.count
	var count func() (messages, envelopes int64, err error)
	var messages, envelopes int64
	err := q.commits.between(func() error {
		late := time.AfterFunc(countBegin, cancel)
		defer late.Stop()
		messages, envelopes = c.messages.Load(), c.envelopes.Load()
		var err error
		count, err = q.store.Count(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := c.add(count); err != nil {
		return err
	}
	c.messages.Add(-messages)
	c.envelopes.Add(-envelopes)
	return nil
}

// await waits until what was there at the start is counted, or that has failed: then the
// error says why, until it has succeeded.
func (c *counters) await(ctx context.Context) error {
	select {
	case <-c.tried:
	case <-ctx.Done():
		return ctx.Err()
	}
	if fault := c.fault.Load(); fault != nil {
		return fmt.Errorf("what is in the queue is not counted yet: %w", *fault)
	}
	return nil
}

// stored notes what a durable change did. The committer calls it before another
// transaction begins.
func (c *counters) stored(change *Change) {
	messages, envelopes := len(change.Insert), len(change.Attach)
	for i := range change.Insert {
		envelopes += len(change.Insert[i].Envelopes)
	}
	if len(change.Remove) > 0 {
		messages -= change.Messages
		envelopes -= change.Affected
	}
	c.messages.Add(int64(messages))
	c.envelopes.Add(int64(envelopes))
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
