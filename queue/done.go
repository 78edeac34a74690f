package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tabard/internal/bodycode"
	"tabard/internal/rpc"
)

// returnPause is how long an envelope rests that a worker gave back twice.
const returnPause = time.Second

// refuse takes back leased items whose body cannot be had.
func (w *poolWorker) refuse(batch []*item, err error) {
	q, a := w.queue, w.queue.active
	id := batch[0].msg.ID
	a.mu.Lock()
	defer a.mu.Unlock()
	var mine []*item
	for _, it := range batch {
		if w.leases[it.env.ID] != it {
			continue // released meanwhile
		}
		w.unlease(it)
		a.reclaim(it)
		mine = append(mine, it)
	}
	var missing *bodycode.NoKeyError
	var unknown *bodycode.UnknownError
	switch {
	case errors.Is(err, rpc.ErrNotFound):
		for _, it := range mine { // removed by hand
			a.handed(it.msg)
			q.leave(it)
		}
	case errors.Is(err, ErrCorrupt):
		q.log.Error("message body is damaged: held", "message", id.String(), "error", err)
		q.hold(mine, err)
	case errors.As(err, &missing):
		q.log.Error("message body is encrypted under a key that is missing: held until the key is back", "message", id.String(), "key", missing.ID, "error", err)
		q.await(mine, HoldKey, missing.ID, err)
	case errors.As(err, &unknown):
		q.log.Error("message body is stored in a way that this version does not know: held until one runs that does", "message", id.String(), "encoding", string(unknown.Encoding), "error", err)
		q.await(mine, HoldEncoding, string(unknown.Encoding), err)
	default:
		q.log.Error("message body not read", "message", id.String(), "error", err)
		q.conclude(mine, Result{Outcome: Deferred, Enhanced: "4.3.0", Text: "queue: " + err.Error()})
	}
}

// Done implements Worker. An error other than rpc.ErrInvalid means that the
// results are not durable yet; the queue goes on trying to store them by itself.
func (w *poolWorker) Done(ctx context.Context, results []Result) error {
	reported := time.Now()
	items, err := w.surrender(results)
	if err != nil {
		return err
	}
	for _, it := range items {
		w.done(it.msg.ID)
	}
	q, a := w.queue, w.queue.active
	a.mu.Lock()
	var known []*item
	var told []Result
	for i, it := range items {
		switch results[i].Outcome {
		case Returned:
			q.returned(it)
			continue
		case Paused:
			q.pausedBy(it, results[i].Hold)
			continue
		}
		known = append(known, it)
		told = append(told, results[i])
	}
	if len(known) == 0 {
		a.mu.Unlock()
		q.kick()
		return nil
	}
	s := q.settlement(known, told)
	s.told = reported
	a.mu.Unlock()
	return q.settle(ctx, s)
}

// surrender checks that all results are about leases of this worker, and ends
// those.
func (w *poolWorker) surrender(results []Result) ([]*item, error) {
	a := w.queue.active
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.gone() {
		return nil, ErrClosed
	}
	seen := make(map[EnvelopeID]bool, len(results))
	for _, r := range results {
		if w.leases[r.ID] == nil || seen[r.ID] {
			return nil, fmt.Errorf("%w: result for %s, which this worker does not have", rpc.ErrInvalid, r.ID)
		}
		if r.Outcome < Delivered || r.Outcome > Paused {
			return nil, fmt.Errorf("%w: outcome %d", rpc.ErrInvalid, r.Outcome)
		}
		seen[r.ID] = true
	}
	items := make([]*item, len(results))
	for i, r := range results {
		items[i] = w.leases[r.ID]
		if items[i].env.Relay {
			a.heard(items[i].dest, &r)
		}
		w.unlease(items[i])
	}
	return items, nil
}

// returned makes an item due at once, or, when it came back before, soon: a
// worker that is busy must not be asked without end. Needs active.mu.
func (q *Queue) returned(it *item) {
	if it.returns++; it.returns == 1 {
		q.giveBack(it)
		return
	}
	q.goWhile(func() {
		if !sleep(q.ctx, returnPause) {
			return
		}
		q.active.mu.Lock()
		q.giveBack(it)
		q.active.mu.Unlock()
		q.kick()
	})
}

// hold keeps envelopes from any attempt until somebody has looked at them.
// Needs active.mu.
func (q *Queue) hold(items []*item, why error) {
	s := &settlement{change: &Change{}}
	for _, it := range items {
		q.active.handed(it.msg)
		e := q.decide(it, &Result{ID: it.env.ID, Outcome: Deferred, Text: "held: " + why.Error()}, time.Now())
		e.update.Hold, e.warn = damaged, false
		s.change.Update = append(s.change.Update, *e.update)
		s.events = append(s.events, e)
	}
	q.goWhile(func() { _ = q.settle(q.ctx, s) })
}
