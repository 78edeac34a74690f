package queue

import (
	"context"
	"fmt"
	"slices"

	"tabard/internal/address"
	"tabard/internal/rpc"
)

const (
	maxList = 1000 // envelopes in one page
	maxShow = 256 << 10
)

// Show implements Admin. It returns 256 KiB of the body at most, of a damaged
// one nothing.
func (q *Queue) Show(ctx context.Context, id MessageID, n, limit int) (Shown, error) {
	rows, err := q.store.Envelopes(ctx, id)
	if err != nil {
		return Shown{}, err
	}
	if n >= 0 {
		rows = slices.DeleteFunc(rows, func(r Stored) bool { return r.ID.N != n })
	}
	if len(rows) == 0 {
		return Shown{}, fmt.Errorf("message %s: %w", id, rpc.ErrNotFound)
	}
	s := Shown{Message: *rows[0].Message, Envelopes: make([]Envelope, len(rows)), Active: []EnvelopeID{}}
	q.active.mu.Lock()
	for i := range rows {
		s.Envelopes[i] = q.why(&rows[i])
		if it := q.active.items[rows[i].ID]; it != nil && it.job != nil {
			s.Active = append(s.Active, rows[i].ID)
		}
	}
	q.active.mu.Unlock()
	if s.Attempts, err = q.store.Attempts(ctx, id); err != nil {
		return s, err
	}
	if n >= 0 {
		s.Attempts = slices.DeleteFunc(s.Attempts, func(a PastAttempt) bool { return a.ID.N != n })
	}
	err = q.showBody(ctx, &s, limit)
	return s, err
}

func (q *Queue) showBody(ctx context.Context, s *Shown, limit int) error {
	id := s.Message.ID
	body, err := q.store.Body(ctx, id)
	if err != nil {
		s.Truncated, s.Fault = true, address.OneLine(err.Error(), maxErrorText)
		return nil
	}
	defer body.Close()
	n := min(body.Size(), int64(max(limit, 0)), maxShow)
	s.Truncated = n < body.Size()
	if n > 0 {
		s.Body = make([]byte, n)
		if got, err := body.ReadAt(s.Body, 0); got < len(s.Body) {
			return fmt.Errorf("body of %s: %w", id, err)
		}
	}
	return nil
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
