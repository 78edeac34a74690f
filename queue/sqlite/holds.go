package sqlite

import (
	"context"
	"time"

	"tabard/queue"
)

// Holds implements queue.Store.
func (s *Store) Holds(ctx context.Context) ([]queue.Hold, error) {
	rows, err := s.reads.holds.QueryContext(ctx)
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	var all []queue.Hold
	for rows.Next() {
		var h queue.Hold
		var created int64
		if err := rows.Scan(&h.ID, &h.Kind, &h.Value, &h.Reason, &created); err != nil {
			return nil, wrap(err)
		}
		h.Created = time.UnixMilli(created)
		all = append(all, h)
	}
	return all, wrap(rows.Err())
}

// Held implements queue.Store.
func (s *Store) Held(ctx context.Context) (map[int64]int64, error) {
	rows, err := s.reads.held.QueryContext(ctx)
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	all := make(map[int64]int64)
	for rows.Next() {
		var id, n int64
		if err := rows.Scan(&id, &n); err != nil {
			return nil, wrap(err)
		}
		all[id] = n
	}
	return all, wrap(rows.Err())
}

// Backlog implements queue.Store.
func (s *Store) Backlog(ctx context.Context, limit int) ([]queue.Backlog, error) {
	rows, err := s.reads.backlog.QueryContext(ctx, limit)
	if err != nil {
		return nil, wrap(err)
	}
	defer rows.Close()
	var all []queue.Backlog
	for rows.Next() {
		var b queue.Backlog
		var next int64
		if err := rows.Scan(&b.Destination, &b.Action, &b.Waiting, &b.Held, &next, &b.LastError); err != nil {
			return nil, wrap(err)
		}
		b.Next = time.UnixMilli(next)
		all = append(all, b)
	}
	return all, wrap(rows.Err())
}
