package queue

import (
	"context"
	"fmt"

	"tabard/internal/rpc"
)

const (
	maxList = 1000 // envelopes in one page
	maxShow = 256 << 10
)

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
