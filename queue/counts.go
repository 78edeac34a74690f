package queue

import (
	"context"
	"sync"
	"time"

	"tabard/internal/count"
	"tabard/internal/eventlog"
)

// numbers is what a queue counts.
type numbers struct {
	count.Set
	waiting, messages, oldest, accepted, envelopes, results, reports, delay, stage *count.Vec

	events *eventlog.Counts
}

// Counted returns what Queue.Counts counts.
func Counted() []count.Desc { return newNumbers().Descs() }

// The states of an envelope that waits.
const (
	stateDelivering = "delivering" // a worker has it
	stateDue        = "due"        // it may be tried now
	stateDeferred   = "deferred"   // until its next attempt
	stateHeld       = "held"       // until somebody looks at it
)

// ageWords name the spans of ages between ageBounds, and that above them.
func ageWords() []string { return []string{"0-5m", "5m-1h", "1h-6h", "6h-1d", "1d-3d", "3d-"} }

func ageBounds() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{5 * time.Minute, time.Hour, 6 * time.Hour, day, 3 * day}
}

func newNumbers() *numbers {
	n := &numbers{}
	n.waiting = n.New(count.Desc{
		Name: "tabard_queue_envelopes", Help: "Recipients whose message waits, by state and by the time since it was accepted.", Kind: count.Gauge,
		Labels: []string{"state", "age"}, Series: count.Cross([]string{stateDelivering, stateDue, stateDeferred, stateHeld}, ageWords()),
	})
	n.messages = n.New(count.Desc{Name: "tabard_queue_messages", Help: "Messages with a recipient that waits.", Kind: count.Gauge})
	n.oldest = n.New(count.Desc{Name: "tabard_queue_oldest_message_age_seconds", Help: "Age of the oldest message that waits; 0 when there is none.", Kind: count.Gauge})
	n.accepted = n.New(count.Desc{Name: "tabard_queue_accepted_messages_total", Help: "Messages that were stored, reports to senders included.", Kind: count.Counter})
	n.envelopes = n.New(count.Desc{Name: "tabard_queue_accepted_envelopes_total", Help: "Recipients of messages that were stored, those of reports included.", Kind: count.Counter})
	n.results = n.New(count.Desc{
		Name: "tabard_queue_results_total", Help: "What became of attempts: delivered, deferred, failed for good; and of recipients without another attempt: expired, removed by hand.", Kind: count.Counter,
		Labels: []string{"result"}, Series: count.Cross([]string{"delivered", "deferred", "failed", "expired", "removed"}),
	})
	n.reports = n.New(count.Desc{Name: "tabard_queue_reports_total", Help: "Reports to senders (bounces, delay warnings, receipts) that were stored for delivery.", Kind: count.Counter})
	n.delay = n.New(count.Desc{
		Name: "tabard_queue_delivery_seconds", Help: "Time from acceptance to delivery, for each recipient that was delivered.", Kind: count.Histogram,
		Labels: []string{"kind"}, Series: count.Cross([]string{"local", "relay"}),
		Buckets: []float64{0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, 6 * 3600, 86400, 3 * 86400},
	})
	n.stage = n.New(count.Desc{
		Name: "tabard_stage_seconds", Help: "How long messages and attempts at delivery were in each stage of their way.", Kind: count.Histogram,
		Labels: []string{"stage"}, Series: count.Cross(stepNames()),
		Buckets: []float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 600},
	})
	n.events = eventlog.NewCounts(&n.Set, "queue")
	return n
}

// settled counts one result.
func (n *numbers) settled(e *event) {
	if e.result.Outcome != Delivered {
		return
	}
	kind := "local"
	if e.it.env.Relay {
		kind = "relay"
	}
	n.delay.Observe(max(0, time.Since(e.it.env.Created).Seconds()), kind)
}

// Counts returns the numbers of Counted.
func (q *Queue) Counts(ctx context.Context) ([][]float64, error) {
	n, c := q.numbers, &q.count
	if err := c.await(ctx); err != nil {
		return nil, err // a queue that is not counted is not said to be empty
	}
	now := time.Now()
	d, err := q.depths(ctx, now)
	if err != nil {
		return nil, err
	}
	q.showDepth(d, now)
	set := func(v *count.Vec, x int64, values ...string) { v.Set(float64(max(0, x)), values...) }
	set(n.messages, c.messages.Load())
	set(n.accepted, c.accepted.Load())
	set(n.envelopes, c.enqueued.Load())
	set(n.results, c.delivered.Load(), "delivered")
	set(n.results, c.deferred.Load(), "deferred")
	set(n.results, c.failed.Load(), "failed")
	set(n.results, c.expired.Load(), "expired")
	set(n.results, c.dropped.Load(), "removed")
	set(n.reports, c.bounced.Load())
	n.events.Take(q.opt.Events)
	return n.Values(), nil
}

// showDepth puts together what the store has and what is in memory: rows that
// are claimed the store leaves out.
func (q *Queue) showDepth(d Depth, now time.Time) {
	words := ageWords()
	delivering, claimed := q.inMemory(now)
	at := func(counts []int64, i int) int64 {
		if i < len(counts) {
			return counts[i]
		}
		return 0
	}
	for i, age := range words {
		for state, n := range map[string]int64{
			stateDelivering: delivering[i],
			stateDue:        at(d.Due, i) + claimed[i] - delivering[i],
			stateDeferred:   at(d.Deferred, i),
			stateHeld:       at(d.Held, i),
		} {
			q.numbers.waiting.Set(float64(max(0, n)), state, age)
		}
	}
	oldest := 0.0
	if !d.Oldest.IsZero() && q.count.messages.Load() > 0 {
		oldest = max(0, now.Sub(d.Oldest).Seconds())
	}
	q.numbers.oldest.Set(oldest)
}

// inMemory counts by age the envelopes that workers have, and those with claims.
func (q *Queue) inMemory(now time.Time) (delivering, claimed []int64) {
	delivering, claimed = make([]int64, len(ageWords())), make([]int64, len(ageWords()))
	bounds := ageBounds()
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, it := range a.items {
		i, age := 0, now.Sub(it.env.Created)
		for i < len(bounds) && age > bounds[i] {
			i++
		}
		if it.job != nil {
			delivering[i]++
		}
		if it.claimed {
			claimed[i]++
		}
	}
	return delivering, claimed
}

// depths is the last Depth that the store counted. Counting a large queue takes a
// while, so it is done no oftener than costs a small part of one processor.
type depths struct {
	mu      sync.Mutex
	last    Depth
	err     error
	again   time.Time     // when it is counted again
	pending chan struct{} // closed when the counting under way is done; nil: there is none
}

const (
	depthPause = time.Second // the shortest time between two counts
	depthShare = 20          // and the longest: so many times as long as one took
	depthWait  = time.Second // how long an answer waits for a new count
)

// depths returns what the store holds now, or lately when that takes long.
func (q *Queue) depths(ctx context.Context, now time.Time) (Depth, error) {
	d := &q.depth
	d.mu.Lock()
	if d.pending == nil && !now.Before(d.again) {
		done := make(chan struct{})
		d.pending = done
		q.goWhile(func() { q.countDepth(done) })
	}
	pending := d.pending
	d.mu.Unlock()
	if pending != nil {
		patience := time.NewTimer(depthWait)
		defer patience.Stop()
		select {
		case <-pending:
		case <-patience.C:
		case <-q.ctx.Done():
			return Depth{}, ErrClosed
		case <-ctx.Done():
			return Depth{}, ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last, d.err
}

func (q *Queue) countDepth(done chan struct{}) {
	began := time.Now()
	var since []time.Time
	for _, age := range ageBounds() {
		since = append(since, began.Add(-age))
	}
	last, err := q.store.Depth(q.ctx, began, since)
	d := &q.depth
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err = err; err == nil {
		d.last = last
	}
	d.again = time.Now().Add(max(depthPause, depthShare*time.Since(began)))
	d.pending = nil
	close(done)
}
