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

const (
	// pruneShare is how many parts of the time that the log covers are deleted one by one.
	pruneShare = 50
	// goalPercent of the limit may be in use in PostgreSQL after deleting: what comes until
	// vacuum has made room is to find some.
	goalPercent = 95
)

// pruneSize deletes the oldest part of the log, and again, until it is small enough.
func (d *DB) pruneSize(ctx context.Context, db *sql.DB, most int64, now time.Time) (deleted int64, err error) {
	gauge := d.sqliteGauge(db)
	if d.d == migrations.Postgres {
		files, err := postgresFiles(ctx, db)
		if err != nil || files <= most {
			return 0, err
		}
		if gauge, err = postgresGauge(ctx, db); err != nil {
			return 0, err
		}
		most = most / 100 * goalPercent
	}
	for {
		if used, err := gauge.used(ctx); err != nil || used <= most {
			return deleted, err
		}
		from, err := d.oldest(ctx)
		if errors.Is(err, errEmpty) {
			return deleted, nil // it is something else that takes the room
		}
		if err != nil {
			return deleted, err
		}
		step := max(now.Sub(from)/pruneShare, time.Second)
		n, err := d.deleteBefore(ctx, db, from.Add(step), gauge.deleted)
		if deleted += n; err != nil {
			return deleted, err
		}
	}
}

// gauge tells how much room events take, while they are deleted.
type gauge struct {
	used    func(context.Context) (int64, error)
	deleted func(eventlog.Kind, int64)
}

// sqliteGauge measures the database without its free pages.
func (d *DB) sqliteGauge(db *sql.DB) gauge {
	return gauge{
		func(ctx context.Context) (size int64, err error) {
			err = db.QueryRowContext(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()").Scan(&size)
			return size, err
		},
		func(eventlog.Kind, int64) {},
	}
}

// postgresFiles is what the tables take on disk, with their indices.
func postgresFiles(ctx context.Context, db *sql.DB) (size int64, err error) {
	for _, k := range eventlog.Kinds() {
		var n int64
		if err := db.QueryRowContext(ctx, "SELECT pg_total_relation_size(to_regclass($1))", tableOf(k)).Scan(&n); err != nil {
			return 0, err
		}
		size += n
	}
	return size, nil
}

// postgresGauge measures how much of the files of PostgreSQL is in use. They do not shrink
// when rows are deleted from their old end: vacuum makes the room free for new rows. So
// what the rows that are there take is counted: each its own width in the table, and its
// share of the indices, which is what the files of both say. PostgreSQL counts the rows by a
// sample of bounded size.
func postgresGauge(ctx context.Context, db *sql.DB) (gauge, error) {
	each, used := map[eventlog.Kind]float64{}, 0.0
	for _, k := range eventlog.Kinds() {
		table := tableOf(k)
		if _, err := db.ExecContext(ctx, "ANALYZE "+table); err != nil {
			return gauge{}, err
		}
		var rows, heap, all float64
		var width sql.NullFloat64
		err := db.QueryRowContext(ctx, fmt.Sprintf(`SELECT reltuples, pg_relation_size(oid), pg_total_relation_size(oid),
			(SELECT avg((pg_column_size(t) + 7) / 8 * 8) FROM (SELECT * FROM %s ORDER BY at DESC LIMIT 1000) AS t)
			FROM pg_class WHERE oid = to_regclass($1)`, table), table).Scan(&rows, &heap, &all, &width)
		if err != nil {
			return gauge{}, err
		}
		if heap > 0 && rows > 0 {
			each[k] = (width.Float64 + itemPointer) * all / heap
			used += min(all, rows*each[k])
		}
	}
	return gauge{
		func(context.Context) (int64, error) { return int64(used), nil },
		func(k eventlog.Kind, n int64) { used -= float64(n) * each[k] },
	}, nil
}

// itemPointer is what a row takes in its page beside itself, in bytes.
const itemPointer = 4
