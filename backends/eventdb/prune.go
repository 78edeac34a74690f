package eventdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"tabard/internal/eventlog"
	"tabard/migrations"
)

// Keep bounds what an event log holds. What is zero does not.
type Keep struct {
	Age   time.Duration
	Bytes int64
}

// Deleting goes in small steps, so that it holds nobody up.
const (
	pruneRows  = 1000
	prunePause = 20 * time.Millisecond
)

// Prune deletes the oldest events until the log is within bounds, and returns how
// many it deleted.
func (d *DB) Prune(ctx context.Context, k Keep, now time.Time) (deleted int64, err error) {
	db, err := d.handle()
	if err != nil {
		return 0, fmt.Errorf("event log: %w", err)
	}
	if have, want, err := migrations.Status(ctx, db, string(d.d), migrations.EventLog); err != nil || have < want {
		return 0, err // who writes next raises it
	}
	if err := d.forgetBatches(ctx, db, now.Add(-keepBatches)); err != nil {
		return 0, fmt.Errorf("event log: %w", err)
	}
	if k.Age > 0 {
		if deleted, err = d.deleteBefore(ctx, db, now.Add(-k.Age), func(eventlog.Kind, int64) {}); err != nil {
			return deleted, fmt.Errorf("event log: %w", err)
		}
	}
	if k.Bytes > 0 {
		n, err := d.pruneSize(ctx, db, k.Bytes, now)
		if deleted += n; err != nil {
			return deleted, fmt.Errorf("event log: %w", err)
		}
	}
	return deleted, nil
}

// keepBatches is how long who follows the log may be held up without missing anything.
const keepBatches = 7 * 24 * time.Hour

// forgetBatches deletes the order in which events came, of those before a time.
func (d *DB) forgetBatches(ctx context.Context, db *sql.DB, cut time.Time) error {
	query := d.d.text(fmt.Sprintf("DELETE FROM log_batches WHERE id IN (SELECT id FROM log_batches WHERE written < ? ORDER BY written LIMIT %d)", pruneRows))
	_, err := d.deleteSteps(ctx, db, query, d.d.time(cut))
	return err
}

// deleteBefore deletes what is older than a time. told hears how many of each kind.
func (d *DB) deleteBefore(ctx context.Context, db *sql.DB, cut time.Time, told func(eventlog.Kind, int64)) (deleted int64, err error) {
	for _, k := range eventlog.Kinds() {
		table := tableOf(k)
		query := d.d.text(fmt.Sprintf("DELETE FROM %s WHERE (at, key) IN (SELECT at, key FROM %s WHERE at < ? ORDER BY at, key LIMIT %d)", table, table, pruneRows))
		n, err := d.deleteSteps(ctx, db, query, d.d.time(cut))
		told(k, n)
		if deleted += n; err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// deleteSteps runs a statement that deletes up to pruneRows until it finds fewer.
func (d *DB) deleteSteps(ctx context.Context, db *sql.DB, query string, args ...any) (deleted int64, err error) {
	for {
		r, err := db.ExecContext(ctx, query, args...)
		if err != nil {
			return deleted, err
		}
		n, err := r.RowsAffected()
		if deleted += n; err != nil || n < pruneRows {
			return deleted, err
		}
		select {
		case <-ctx.Done():
			return deleted, ctx.Err()
		case <-time.After(prunePause):
		}
	}
}

// oldest returns the time of the oldest event, or errEmpty.
func (d *DB) oldest(ctx context.Context) (time.Time, error) {
	db, err := d.handle()
	if err != nil {
		return time.Time{}, err
	}
	var found time.Time
	for _, k := range eventlog.Kinds() {
		s := &stream{d: d, db: db, kind: k}
		e, err := s.first(ctx)
		if err != nil {
			return found, err
		}
		if e != nil && (found.IsZero() || e.Common().At.Before(found)) {
			found = e.Common().At
		}
	}
	if found.IsZero() {
		return found, errEmpty
	}
	return found, nil
}

// first reads the oldest event of a stream alone; nil if there is none.
func (s *stream) first(ctx context.Context) (eventlog.Event, error) {
	e := eventlog.New(s.kind)
	to, done := s.d.d.scan(e)
	err := s.db.QueryRowContext(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY at, key LIMIT 1", columnsOf(s.kind), tableOf(s.kind))).Scan(to...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	done()
	return e, err
}
