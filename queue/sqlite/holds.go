package sqlite

import (
	"context"
	"database/sql"
	"time"

	"tabard/queue"
)

// Holds implements queue.Store.
func (s *Store) Holds(ctx context.Context) ([]queue.Hold, error) {
	rows, err := s.reads.holds.QueryContext(ctx)
	all, err := collect(rows, err, func(rows *sql.Rows) (queue.Hold, error) {
		var h queue.Hold
		var created int64
		err := rows.Scan(&h.ID, &h.Kind, &h.Value, &h.Reason, &created)
		h.Created = time.UnixMilli(created)
		return h, err
	})
	return all, wrap(err)
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

// keepsText says held > 0 because the index of what is held does.
const keepsText = "SELECT EXISTS (SELECT 1 FROM envelopes WHERE held > 0 AND held = ?)"

// Keeps implements queue.Store.
func (s *Store) Keeps(ctx context.Context, hold int64) (keeps bool, err error) {
	err = s.read.QueryRowContext(ctx, keepsText, hold).Scan(&keeps)
	return keeps, wrap(err)
}

// Backlog implements queue.Store.
func (s *Store) Backlog(ctx context.Context, limit int) ([]queue.Backlog, error) {
	rows, err := s.reads.backlog.QueryContext(ctx, limit)
	all, err := collect(rows, err, func(rows *sql.Rows) (queue.Backlog, error) {
		var b queue.Backlog
		var next int64
		err := rows.Scan(&b.Destination, &b.Action, &b.Waiting, &b.Held, &next, &b.LastError)
		b.Next = time.UnixMilli(next)
		return b, err
	})
	return all, wrap(err)
}
