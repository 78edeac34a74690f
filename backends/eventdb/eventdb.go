// Package eventdb keeps the event log in an SQLite or PostgreSQL database: it writes
// batches, asks for events again, and deletes what is old.
package eventdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"tabard/backends/provision"
	"tabard/internal/eventlog"
	"tabard/migrations"
)

// Source says where the database is: where one of our own schema may be.
type Source = provision.Source

func dialectOf(s Source) dialect {
	if s.Conninfo != "" {
		return migrations.Postgres
	}
	return migrations.SQLite
}

// DB is the database of an event log. It is safe for concurrent use. An SQLite file
// that is replaced is opened anew.
type DB struct {
	src Source
	d   dialect

	mu     sync.Mutex // guards what follows; held while writing
	db     *sql.DB
	file   os.FileInfo // SQLite
	raised bool        // the schema is current
	closed bool

	prepared statements // of db
}

var _ eventlog.Store = (*DB)(nil)

// errMissing says what to do about a database that is not there.
var errMissing = errors.New("there is no such database: run tabard migrate to make it")

// New returns the database behind a source. Nothing is opened yet.
func New(src Source) *DB { return &DB{src: src, d: dialectOf(src)} }

// Open opens a database whose schema is there and current.
func Open(ctx context.Context, src Source) (*DB, error) {
	d := New(src)
	db, err := d.handle()
	if err != nil {
		return nil, err
	}
	have, want, err := migrations.Status(ctx, db, string(d.d), migrations.EventLog)
	if err == nil && have < want {
		err = fmt.Errorf("schema of the event log has version %d, version %d is needed: run tabard migrate", have, want)
	}
	if err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("%s: %w", src, err)
	}
	d.raised = true
	return d, nil
}

// Migrate brings the schema of the event log up, and returns the version before and
// after. An SQLite file must be there; an empty one will do.
func Migrate(ctx context.Context, src Source) (from, to int64, err error) {
	d := New(src)
	db, err := d.handle()
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = d.Close() }()
	if from, to, err = migrations.Up(ctx, db, string(d.d), migrations.EventLog); err != nil {
		return from, to, fmt.Errorf("%s: %w", src, err)
	}
	return from, to, nil
}

// Close closes the database.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return d.drop()
}

func (d *DB) drop() error {
	if d.db == nil {
		return nil
	}
	err := d.db.Close()
	d.db, d.raised, d.prepared = nil, false, statements{}
	return err
}

// handle returns the open database.
func (d *DB) handle() (*sql.DB, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open()
}

// open needs mu.
func (d *DB) open() (*sql.DB, error) {
	if d.closed {
		return nil, os.ErrClosed
	}
	if d.src.Conninfo != "" {
		if d.db == nil {
			db, err := migrations.OpenPostgres(d.src.Conninfo)
			if err != nil {
				return nil, err
			}
			db.SetMaxOpenConns(3)
			d.db = db
		}
		return d.db, nil
	}
	info, err := os.Stat(d.src.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		_ = d.drop()
		return nil, fmt.Errorf("%s: %w", d.src.Path, errMissing)
	case err != nil:
		return nil, err
	case d.db != nil && !os.SameFile(info, d.file):
		_ = d.drop()
	}
	if d.db == nil {
		if d.db, err = openSQLite(d.src.Path); err != nil {
			return nil, err
		}
		d.file, d.prepared = info, statements{d.db, map[statement]*sql.Stmt{}}
	}
	return d.db, nil
}

// openSQLite opens a file that is there. A log that loses its last second when the
// power fails is worth less than the disk's time, so commits are not synced one by one.
// Rows go to many places of several indices: with more in memory, and fewer checkpoints,
// fewer pages are written more than once.
func openSQLite(path string) (*sql.DB, error) {
	db, err := provision.OpenSQLite(path, "synchronous(NORMAL)", "cache_size(-16000)", "wal_autocheckpoint(4000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(3)
	return db, nil
}

// Write implements eventlog.Store. A schema that is missing or old is brought up first.
func (d *DB) Write(ctx context.Context, b *eventlog.Batch) error {
	_, err := d.Insert(ctx, b)
	return err
}

// Insert is Write, and returns how many events were not there before.
func (d *DB) Insert(ctx context.Context, b *eventlog.Batch) (fresh int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	db, err := d.open()
	if err != nil {
		return 0, fmt.Errorf("event log: %w", err)
	}
	if !d.raised {
		if _, _, err := migrations.Up(ctx, db, string(d.d), migrations.EventLog); err != nil {
			return 0, fmt.Errorf("event log: %w", err)
		}
		d.raised = true
	}
	if fresh, err = d.insert(ctx, db, b); err != nil {
		d.raised = false // the database may have become another one
		return 0, fmt.Errorf("event log: %w", err)
	}
	return fresh, nil
}

func (d *DB) insert(ctx context.Context, db *sql.DB, b *eventlog.Batch) (fresh int64, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if fresh, err = d.d.add(ctx, tx, b, &d.prepared); err != nil || fresh == 0 {
		return 0, err // a batch that brings nothing leaves no trace
	}
	return fresh, tx.Commit()
}

// begin gives a batch its number.
func (d dialect) begin(ctx context.Context, tx *sql.Tx, b *eventlog.Batch) (id int64, err error) {
	var since, until time.Time
	for _, k := range eventlog.Kinds() {
		for _, e := range b.Of(k) {
			at := e.Common().At
			if since.IsZero() || at.Before(since) {
				since = at
			}
			if at.After(until) {
				until = at
			}
		}
	}
	query, args := "INSERT INTO log_batches (since, until) VALUES ($1, $2) RETURNING id", []any{since, until}
	if d == migrations.SQLite {
		query = "INSERT INTO log_batches (written, since, until) VALUES (?, ?, ?) RETURNING id"
		args = []any{time.Now().UnixMilli(), since.UnixMilli(), until.UnixMilli()}
	}
	err = tx.QueryRowContext(ctx, query, args...).Scan(&id)
	return id, err
}

// tableOf is the table of a kind's events.
func tableOf(k eventlog.Kind) string {
	if k == eventlog.KindLoss {
		return "log_losses"
	}
	return "log_" + string(k) + "s"
}

func columnsOf(k eventlog.Kind) string {
	var names []string
	for _, f := range eventlog.New(k).Fields() {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}
