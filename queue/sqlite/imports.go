package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tabard/queue"
)

const (
	importText = "INSERT INTO imports (export, message, at) VALUES (?, ?, ?)"
	// A part at a time: an export may have been large.
	forgetImportsText = `DELETE FROM imports WHERE (export, message) IN (SELECT export, message FROM imports WHERE at < ? ORDER BY at LIMIT 100)`
)

// imported notes that a message was imported, and forgets those of long ago.
func (w *writer) imported(ctx context.Context, m *queue.ImportMark) error {
	if _, err := w.importMark.ExecContext(ctx, m.Export, int64(m.Message), m.At.UnixMilli()); err != nil {
		return err
	}
	_, err := w.forgetImports.ExecContext(ctx, m.At.Add(-queue.ImportsKept).UnixMilli())
	return err
}

// attached adds an envelope to a message that is there.
func (w *writer) attached(ctx context.Context, a *queue.Attached) error {
	var id int64
	switch err := w.there.QueryRowContext(ctx, int64(a.Message.ID)).Scan(&id); {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%w: message %s is gone", queue.ErrConflict, a.Message.ID)
	case err != nil:
		return err
	}
	return w.attach(ctx, a.Message, &a.NewEnvelope)
}

// Imported implements queue.Store.
func (s *Store) Imported(ctx context.Context, export string, id queue.MessageID) (bool, error) {
	var n int
	err := s.read.QueryRowContext(ctx, "SELECT count(*) FROM imports WHERE export = ? AND message = ?", export, int64(id)).Scan(&n)
	return n > 0, s.health.judge(err)
}
