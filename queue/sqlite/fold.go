package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// fold copies the log into the database once it is long enough. SQLite would do
// that by itself, and tell nobody when it cannot.
//
// Without space it is tried again after the next transaction, and copies the
// same pages again: the log has them still. Any other failure means that the
// disk is not fit to go on with.
func (s *Store) fold(ctx context.Context) {
	w := s.stmts
	n, err := w.written()
	if err == nil {
		if w.unfolded += n; w.unfolded < s.under.foldPages {
			return
		}
		var left int
		if left, err = checkpoint(ctx, w.conn, "PASSIVE"); err == nil {
			w.unfolded = 0
			if left > 0 { // a reader is in the way
				w.unfolded = s.under.foldPages
			}
			return
		}
	}
	s.health.judge(foldError(err))
}

// foldError makes every error of folding one after which nothing goes on, but
// for those that heal.
func foldError(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_IOERR {
		return fmt.Errorf("fold the log into the database: %w: %w", errSync, err)
	}
	return err
}

// written is how many pages this connection has put into the log since it was
// asked last.
func (w *writer) written() (n int, err error) {
	err = w.conn.Raw(func(c any) error {
		n, _, err = c.(sqlite.DBStatus).Status(sqlite.DBStatusCacheWrite, true)
		return err
	})
	return n, err
}

// querier is a connection or a pool of them.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// checkpoint folds the log and returns how many of its pages are still to be.
func checkpoint(ctx context.Context, db querier, mode string) (left int, err error) {
	var busy, pages, done int
	err = db.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &done)
	return pages - done, err
}
