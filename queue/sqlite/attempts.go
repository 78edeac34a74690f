package sqlite

import (
	"context"
	"database/sql"
	"time"

	"tabard/queue"
)

const (
	attemptText = `INSERT OR REPLACE INTO attempts (message, n, number, at, remote, result, next)
		SELECT message, n, ?1, ?2, ?3, ?4, ?5 FROM envelopes WHERE message = ?6 AND n = ?7`
	dropAttemptsText = "DELETE FROM attempts WHERE message = ? AND n = ? AND number <= ?"
)

// attempted notes an attempt, and forgets those of long ago.
func (w *writer) attempted(ctx context.Context, a *queue.PastAttempt) error {
	if _, err := w.attempt.ExecContext(ctx, a.Number, a.At.UnixMilli(), a.Remote, a.Result, a.Next.UnixMilli(), int64(a.ID.Message), a.ID.N); err != nil {
		return err
	}
	if a.Number <= queue.KeptAttempts {
		return nil
	}
	_, err := w.dropAttempts.ExecContext(ctx, int64(a.ID.Message), a.ID.N, a.Number-queue.KeptAttempts)
	return err
}

// Attempts implements queue.Store.
func (s *Store) Attempts(ctx context.Context, id queue.MessageID) ([]queue.PastAttempt, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT n, number, at, remote, result, next FROM attempts WHERE message = ? ORDER BY n, number", int64(id))
	all, err := collect(rows, err, func(rows *sql.Rows) (queue.PastAttempt, error) {
		a := queue.PastAttempt{ID: queue.EnvelopeID{Message: id}}
		var at, next int64
		err := rows.Scan(&a.ID.N, &a.Number, &at, &a.Remote, &a.Result, &next)
		a.At, a.Next = time.UnixMilli(at), time.UnixMilli(next)
		return a, err
	})
	return all, s.health.judge(err)
}
