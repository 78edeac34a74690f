package queue

import (
	"context"
	"fmt"
	"time"

	"tabard/internal/eventlog"
	"tabard/internal/rpc"
)

const (
	maxList   = 1000 // envelopes in one page
	adminPage = 500  // envelopes in one change
	maxShow   = 256 << 10
)

// List implements Admin. A page has 1,000 envelopes at most.
func (q *Queue) List(ctx context.Context, after EnvelopeID, limit int) ([]Listed, error) {
	if limit < 1 {
		return nil, fmt.Errorf("%w: list %d envelopes", rpc.ErrInvalid, limit)
	}
	rows, err := q.store.List(ctx, after, min(limit, maxList))
	if err != nil {
		return nil, err
	}
	list := make([]Listed, len(rows))
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, r := range rows {
		it := a.items[r.ID]
		list[i] = Listed{Envelope: q.why(&r), Sender: r.Message.Sender, Size: r.Message.Size, InFlight: it != nil && it.job != nil}
	}
	return list, nil
}

// Show implements Admin. It returns 256 KiB of the body at most, of a damaged
// one nothing.
func (q *Queue) Show(ctx context.Context, id MessageID, limit int) (Shown, error) {
	rows, err := q.store.Envelopes(ctx, id)
	if err != nil {
		return Shown{}, err
	}
	if len(rows) == 0 {
		return Shown{}, fmt.Errorf("message %s: %w", id, rpc.ErrNotFound)
	}
	s := Shown{Message: *rows[0].Message, Envelopes: make([]Envelope, len(rows))}
	q.active.mu.Lock()
	for i := range rows {
		s.Envelopes[i] = q.why(&rows[i])
	}
	q.active.mu.Unlock()
	if s.Attempts, err = q.store.Attempts(ctx, id); err != nil {
		return s, err
	}
	body, err := q.store.Body(ctx, id)
	if err != nil {
		s.Truncated = true
		return s, nil
	}
	defer body.Close()
	n := min(body.Size(), int64(max(limit, 0)), maxShow)
	s.Truncated = n < body.Size()
	if n > 0 {
		s.Body = make([]byte, n)
		if got, err := body.ReadAt(s.Body, 0); got < len(s.Body) {
			return s, fmt.Errorf("body of %s: %w", id, err)
		}
	}
	return s, nil
}

// Retry implements Admin. Envelopes that are being tried stay as they are, but
// count as due. One with a damaged body is tried: a Release does not exist for it.
func (q *Queue) Retry(ctx context.Context, id MessageID, n int) (Retried, error) {
	if id != 0 {
		rows, err := q.selected(ctx, id, n)
		if err != nil {
			return Retried{}, err
		}
		return q.retry(ctx, rows)
	}
	var total Retried
	for after := (EnvelopeID{}); ; {
		rows, err := q.store.List(ctx, after, adminPage)
		if err != nil || len(rows) == 0 {
			return total, err
		}
		part, err := q.retry(ctx, rows)
		if err != nil {
			return total, err
		}
		total.Due += part.Due
		total.Held += part.Held
		after = rows[len(rows)-1].ID
	}
}

// selected returns envelope n of a message, or all when n < 0.
func (q *Queue) selected(ctx context.Context, id MessageID, n int) ([]Stored, error) {
	rows, err := q.store.Envelopes(ctx, id)
	if err != nil {
		return nil, err
	}
	var chosen []Stored
	for _, r := range rows {
		if n < 0 || r.ID.N == n {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("message %s: %w", id, rpc.ErrNotFound)
	}
	return chosen, nil
}

func (q *Queue) retry(ctx context.Context, rows []Stored) (Retried, error) {
	var done Retried
	change := &Change{DueAt: time.Now()}
	a := q.active
	a.mu.Lock()
	for i := range rows {
		r := &rows[i]
		it := a.items[r.ID]
		switch {
		case it != nil && it.job != nil:
			done.Due++
		case r.Hold != damaged && q.why(r).Held:
			done.Held++
		case it != nil:
			done.Due++
		default:
			change.Due = append(change.Due, r.ID)
		}
	}
	a.mu.Unlock()
	if len(change.Due) == 0 {
		return done, nil
	}
	if err := q.commits.do(ctx, change); err != nil {
		return Retried{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q.storedAny(change.DueAt)
	done.Due += change.Affected
	return done, nil
}

// Remove implements Admin. A delivery that is under way is not called back, but
// its outcome is of no consequence. The id of a message is needed.
func (q *Queue) Remove(ctx context.Context, id MessageID, n int) (int, error) {
	if id == 0 {
		return 0, fmt.Errorf("%w: remove needs the id of a message", rpc.ErrInvalid)
	}
	rows, err := q.selected(ctx, id, n)
	if err != nil {
		return 0, err
	}
	change := &Change{}
	for _, r := range rows {
		change.Remove = append(change.Remove, r.ID)
	}
	if err := q.commits.do(ctx, change); err != nil {
		return 0, err
	}
	q.count.removed(change)
	q.count.dropped.Add(int64(change.Affected))
	q.forget(rows)
	for i := range rows {
		q.logEnd("queue remove", rows[i].Message, &rows[i].Envelope)
		q.recordEnd(rows[i].Message, &rows[i].Envelope, eventlog.Removed, nil)
	}
	return change.Affected, nil
}

// forget marks what is in memory of removed envelopes.
func (q *Queue) forget(rows []Stored) {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range rows {
		if it := a.items[r.ID]; it != nil {
			it.dropped = true
		}
	}
}
