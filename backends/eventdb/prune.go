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
	pruneShare = 50 // by size, so many parts of the time that the log covers
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
		if deleted, err = d.deleteBefore(ctx, db, now.Add(-k.Age)); err != nil {
			return deleted, fmt.Errorf("event log: %w", err)
		}
	}
	if k.Bytes > 0 {
		n, err := d.pruneSize(ctx, db, k.Bytes, now)
		return deleted + n, err
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

// pruneSize deletes the oldest part of the log, and again, until it is small enough.
func (d *DB) pruneSize(ctx context.Context, db *sql.DB, most int64, now time.Time) (deleted int64, err error) {
	size, each, err := d.size(ctx, db)
	for err == nil && size > most {
		from, err := d.oldest(ctx)
		if errors.Is(err, errEmpty) {
			return deleted, nil // it is something else that takes the room
		}
		if err != nil {
			return deleted, err
		}
		step := max(now.Sub(from)/pruneShare, time.Second)
		n, err := d.deleteBefore(ctx, db, from.Add(step))
		if deleted += n; err != nil {
			return deleted, err
		}
		if size -= n * each; each == 0 {
			size, _, err = d.size(ctx, db)
		}
		if err != nil {
			return deleted, err
		}
	}
	return deleted, err
}

// deleteBefore deletes what is older than a time.
func (d *DB) deleteBefore(ctx context.Context, db *sql.DB, cut time.Time) (deleted int64, err error) {
	for _, k := range eventlog.Kinds() {
		table := tableOf(k)
		query := d.d.text(fmt.Sprintf("DELETE FROM %s WHERE (at, key) IN (SELECT at, key FROM %s WHERE at < ? ORDER BY at, key LIMIT %d)", table, table, pruneRows))
		n, err := d.deleteSteps(ctx, db, query, d.d.time(cut))
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

// size is about how many bytes the log takes. Of SQLite it is the database without
// its free pages. The files of PostgreSQL do not shrink, and its statistics are late:
// there it is the rows that live, by what each takes on average.
func (d *DB) size(ctx context.Context, db *sql.DB) (size, each int64, err error) {
	if d.d == migrations.SQLite {
		err = db.QueryRowContext(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()").Scan(&size)
		return size, 0, err
	}
	var rows float64
	for _, k := range eventlog.Kinds() {
		var live, width sql.NullFloat64
		table := tableOf(k)
		err := db.QueryRowContext(ctx, "SELECT (SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass($1)), (SELECT avg(pg_column_size(t)) FROM (SELECT * FROM "+
			table+" ORDER BY at DESC LIMIT 1000) t)", table).Scan(&live, &width)
		if err != nil {
			return 0, 0, err
		}
		rows += live.Float64
		size += int64(live.Float64 * (width.Float64 + rowOverhead))
	}
	return size, max(1, size/int64(max(1, rows))), nil
}

// rowOverhead is what a row takes in PostgreSQL beside its values: its header, and its
// place in about four indices.
const rowOverhead = 200
