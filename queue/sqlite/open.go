// Package sqlite keeps a queue in one SQLite database, with bodies larger than
// queue.InlineBody as files beside it.
//
// What leads to a 250, in order: a large body is written to a temporary file in
// messages/, synced, renamed to the message's id, and the directory synced; then
// one transaction (write-ahead log, synchronous=FULL: synced before COMMIT
// returns) holds the message and every envelope. A file whose row never came is
// removed at the next start; a row is never without its file. Files go after
// the transaction that removes their row.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"tabard/internal/bodycode"
	"tabard/migrations"
	"tabard/queue"
)

const (
	// checkpointPages of 4 KiB: 6 MiB of log. Larger checkpoints stall writers
	// for longer, smaller ones write the same pages more often.
	checkpointPages = 1500
	// walLimit is what the log is cut back to after a burst, in bytes.
	walLimit = 64 << 20
	// readers bounds the connections that read.
	readers = 4
	// checkAllBelow is the largest database, in bytes, that is checked whole at
	// start; of a larger one only the schedule is, so that it starts in time.
	checkAllBelow = 256 << 20
)

// Store is a queue.Store on SQLite.
type Store struct {
	path  string
	files *bodyFiles
	read  *sql.DB
	write *sql.DB
	stmts *writer
	reads *reader
	coder atomic.Pointer[bodycode.Coder]
}

var _ queue.Store = (*Store)(nil)

// Open opens the queue database at path, and creates it when there is no file.
// A damaged database is an error that wraps queue.ErrCorrupt and names the file;
// it is left as it is. Bodies are kept in the directory messages beside it,
// which also bears the lock that keeps a second process out.
func Open(ctx context.Context, path string) (_ *Store, err error) {
	s := &Store{path: path}
	plain, err := bodycode.New(bodycode.Options{})
	if err != nil {
		return nil, err
	}
	s.coder.Store(plain)
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("queue database %s: %w", path, err)
		}
	}()
	if s.files, err = openBodyFiles(filepath.Join(filepath.Dir(path), "messages")); err != nil {
		return nil, err
	}
	if err = private(path); err != nil {
		return nil, err
	}
	if s.write, err = connect(path, 1); err != nil {
		return nil, err
	}
	if err = s.check(ctx); err != nil {
		return nil, err
	}
	if _, _, err = migrations.Up(ctx, s.write, migrations.SQLite, migrations.Queue); err != nil {
		return nil, wrap(err)
	}
	if s.read, err = connect(path, readers); err != nil {
		return nil, err
	}
	return s, s.prepare(ctx)
}

// prepare ends the claims of the process before, and readies statements.
func (s *Store) prepare(ctx context.Context) (err error) {
	if _, err = s.write.ExecContext(ctx, "UPDATE envelopes SET lease = NULL WHERE lease IS NOT NULL"); err != nil {
		return wrap(err)
	}
	if s.stmts, err = newWriter(ctx, s.write); err != nil {
		return wrap(err)
	}
	if s.reads, err = newReader(ctx, s.read); err != nil {
		return wrap(err)
	}
	return s.files.sweep(func(id queue.MessageID) (string, error) { return s.reads.file(ctx, id) })
}

// Close ends the store. Nothing that Apply acknowledged depends on it.
func (s *Store) Close() error {
	var errs []error
	if s.stmts != nil {
		errs = append(errs, s.stmts.close())
	}
	if s.reads != nil {
		errs = append(errs, s.reads.close())
	}
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.files != nil {
		errs = append(errs, s.files.close())
	}
	return errors.Join(errs...)
}

// private creates the database file with its mode before SQLite does; the log
// files take theirs from it.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func connect(path string, conns int) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	pragmas := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)",
		fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages),
		fmt.Sprintf("journal_size_limit(%d)", walLimit),
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: abs}).EscapedPath()+"?"+pragmas.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// check refuses a database that is damaged.
func (s *Store) check(ctx context.Context) error {
	info, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	pragma := "PRAGMA quick_check(5)"
	if info.Size() > checkAllBelow {
		pragma = "PRAGMA quick_check(envelopes)"
	}
	rows, err := s.write.QueryContext(ctx, pragma)
	if err != nil {
		return wrap(err)
	}
	defer rows.Close()
	var faults []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return wrap(err)
		}
		if line != "ok" && len(faults) < 5 {
			faults = append(faults, line)
		}
	}
	if err := rows.Err(); err != nil {
		return wrap(err)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %s", queue.ErrCorrupt, strings.Join(faults, "; "))
	}
	return nil
}
