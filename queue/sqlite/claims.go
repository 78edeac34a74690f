package sqlite

import (
	"context"
	"database/sql"

	"tabard/queue"
)

// A claim is the number of the process that made it, see Store.run: to end those of the
// processes before is no part of a start, which would have to look at every envelope
// first. An index of them would be written twice for each envelope that is delivered
// at once, which is what claims are to spare.
const (
	abandonedText = "SELECT message, n FROM envelopes WHERE lease <> ? AND (message, n) > (?, ?) ORDER BY message, n LIMIT ?"
	unclaimText   = "UPDATE envelopes SET lease = NULL WHERE message = ? AND n = ? AND lease <> ?"
)

// Abandoned implements queue.Store.
func (s *Store) Abandoned(ctx context.Context, after queue.EnvelopeID, limit int) ([]queue.EnvelopeID, error) {
	if err := s.health.check(); err != nil {
		return nil, err
	}
	rows, err := s.read.QueryContext(ctx, abandonedText, s.run, int64(after.Message), after.N, limit)
	ids, err := collect(rows, err, func(rows *sql.Rows) (id queue.EnvelopeID, err error) {
		err = rows.Scan(&id.Message, &id.N)
		return id, err
	})
	return ids, s.health.judge(err)
}

// Abandoned implements queue.Store: nothing is freed.
func (s *Inspection) Abandoned(context.Context, queue.EnvelopeID, int) ([]queue.EnvelopeID, error) {
	return nil, nil
}

// unclaimed ends claims of processes before.
func (w *writer) unclaimed(ctx context.Context, c *queue.Change) error {
	for _, id := range c.Free {
		if _, err := w.unclaim.ExecContext(ctx, int64(id.Message), id.N, w.run); err != nil {
			return err
		}
	}
	return nil
}
