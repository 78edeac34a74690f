package sqlite

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"tabard/queue"
)

// The counts read indices only: the rows of a million envelopes are hundreds of
// megabytes. The id of a message, which every index has, tells its age.
const (
	dueDepth      = " FROM envelopes INDEXED BY envelopes_due WHERE " + waiting + " AND lane IN (0, 1, 2) AND next <= ?"
	deferredDepth = " FROM envelopes INDEXED BY envelopes_due WHERE " + waiting + " AND lane IN (0, 1, 2) AND next > ?"
	heldDepth     = " FROM envelopes INDEXED BY envelopes_held WHERE held > 0"
)

// Depth implements queue.Store.
func (s *Store) Depth(ctx context.Context, now time.Time, since []time.Time) (queue.Depth, error) {
	var d queue.Depth
	var err error
	if d.Due, err = s.depth(ctx, dueDepth, since, now.UnixMilli()); err != nil {
		return d, err
	}
	if d.Deferred, err = s.depth(ctx, deferredDepth, since, now.UnixMilli()); err != nil {
		return d, err
	}
	if d.Held, err = s.depth(ctx, heldDepth, since); err != nil {
		return d, err
	}
	var oldest sql.NullInt64
	err = s.read.QueryRowContext(ctx, "SELECT min(id) FROM messages").Scan(&oldest)
	if err == nil && oldest.Valid {
		d.Oldest = queue.MessageID(oldest.Int64).Time()
	}
	return d, wrap(err)
}

// depthQuery counts all, and those whose message is not older than each of n ids.
func depthQuery(from string, n int) string {
	return "SELECT count(*)" + strings.Repeat(", total(message >= ?)", n) + from
}

func (s *Store) depth(ctx context.Context, from string, since []time.Time, more ...any) ([]int64, error) {
	var args, into []any
	younger := make([]float64, len(since)+1) // than each bound, and all
	for i, t := range since {
		args = append(args, int64(queue.FirstID(t)))
		into = append(into, &younger[i])
	}
	all := &younger[len(since)]
	row := s.read.QueryRowContext(ctx, depthQuery(from, len(since)), append(args, more...)...)
	if err := row.Scan(append([]any{all}, into...)...); err != nil {
		return nil, wrap(err)
	}
	counts := make([]int64, len(younger))
	for i := range younger {
		counts[i] = int64(younger[i])
		if i > 0 {
			counts[i] -= int64(younger[i-1])
		}
	}
	return counts, nil
}
