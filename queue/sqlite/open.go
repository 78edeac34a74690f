// Package sqlite keeps a queue in one SQLite database, with bodies larger than
// queue.ColumnBody as files beside it.
//
// Package queue says in which order things become durable. Here a body's file is
// written as messages/tmp-*, linked to the message's id once it is synced, and the
// directory synced then; the transaction is in the write-ahead log, which
// synchronous=FULL syncs before COMMIT returns.
//
// A store whose sync failed, or whose database turns out to be damaged, does
// nothing more (health); Open checks what a process left that did not end cleanly
// (mark), and writes anew what the log holds.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
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
)

// Store is a queue.Store on SQLite.
type Store struct {
	path   string
	under  under
	health *health
	files  *bodyFiles
	read   *sql.DB
	write  *sql.DB
	stmts  *writer
	reads  *reader
	coder  atomic.Pointer[bodycode.Coder]
	run    int64 // what claims of this process have as their lease
}

var _ queue.Store = (*Store)(nil)

// under is what a store stands on. Tests have one that fails.
type under struct {
	disk      disk
	vfs       string // of SQLite; empty: its own
	foldPages int    // see fold; 0: checkpointPages
}

// Open opens the queue database at path, and creates it when there is no file.
// After anything but a clean end it is checked. A damaged database is an error
// that wraps queue.ErrCorrupt and names the file, and so is none, or an empty
// one, where there was one or there are bodies of messages; all is left as it is.
// Bodies are kept in the directory messages beside it, which also bears the lock that
// keeps a second process out.
func Open(ctx context.Context, path string) (*Store, error) {
	return openOn(ctx, path, under{disk: system{}})
}

func openOn(ctx context.Context, path string, u under) (_ *Store, err error) {
	if u.foldPages == 0 {
		u.foldPages = checkpointPages
	}
	s := &Store{path: path, under: u, health: newHealth(), run: newRun()}
	plain, err := bodycode.New(bodycode.Options{})
	if err != nil {
		return nil, err
	}
	s.coder.Store(plain)
	defer func() {
		if err != nil {
			if s.files != nil {
				if !fatal(err) { // else see Close
					err = errors.Join(err, s.closeAll())
				}
				err = errors.Join(err, s.files.end(err))
			}
			err = fmt.Errorf("queue database %s: %w", path, err)
		}
	}()
	if s.files, err = openBodyFiles(filepath.Join(filepath.Dir(path), "messages"), u.disk, s.health); err != nil {
		return nil, err
	}
	if err = s.files.swapping(path); err != nil {
		return nil, err
	}
	if err = s.present(); err != nil {
		return nil, err
	}
	before, err := s.files.begin()
	if err != nil {
		return nil, err
	}
	if before != markClean {
		if err = checkLog(path + "-wal"); err != nil {
			return nil, err
		}
	}
	if err = private(path); err != nil {
		return nil, err
	}
	if err = synced(u.disk.SyncDir(filepath.Dir(path))); err != nil {
		return nil, err
	}
	if s.write, err = s.connect(1); err != nil {
		return nil, err
	}
	if err = s.check(ctx, before); err != nil {
		return nil, err
	}
	if _, _, err = migrations.Up(ctx, s.write, migrations.SQLite, migrations.Queue); err != nil {
		return nil, wrap(err)
	}
	if before == "" || before == markNew {
		if err = s.files.mark(markInUse); err != nil {
			return nil, err
		}
	}
	if s.read, err = s.connect(readers); err != nil {
		return nil, err
	}
	if err = s.prepare(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// newRun returns a number that no process before had, but for a chance of 2^-47. SQLite
// stores it in six bytes.
func newRun() int64 { return 2 + rand.Int64N(1<<47-2) } // 1 is what old versions wrote

// prepare readies statements.
func (s *Store) prepare(ctx context.Context) (err error) {
	// What the log holds is written anew: the process before may have ended
	// because a sync failed, and then what it wrote is not on disk, though the
	// kernel shows it.
	if _, err = checkpoint(ctx, s.write, "TRUNCATE"); err != nil {
		return wrap(err)
	}
	if s.stmts, err = newWriter(ctx, s.write, s.run); err != nil {
		return wrap(err)
	}
	if s.reads, err = newReader(ctx, s.read, s.health); err != nil {
		return wrap(err)
	}
	return s.files.sweep(func(id queue.MessageID) (string, error) { return s.reads.file(ctx, id) })
}

// Close ends the store. Nothing that Apply acknowledged depends on it.
func (s *Store) Close() error {
	err := s.Writable()
	if err == nil {
		// SQLite does it, too, as its last connection closes, and tells of no error.
		_, err = checkpoint(context.Background(), s.stmts.conn, "TRUNCATE")
		err = s.health.judge(err)
	}
	if s.Writable() != nil {
		// SQLite would fold the log as its last connection closes, from what can
		// no longer be relied on. The connections end with the process.
		return errors.Join(err, s.files.end(err))
	}
	err = errors.Join(err, s.closeAll())
	return errors.Join(err, s.files.end(err))
}

func (s *Store) closeAll() error {
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

func (s *Store) connect(conns int) (*sql.DB, error) {
	abs, err := filepath.Abs(s.path)
	if err != nil {
		return nil, err
	}
	first := []string{"busy_timeout(10000)"}
	if info, err := os.Stat(abs); err == nil && info.Size() == 0 {
		// See Tidy. It writes to any database, which a damaged one is to be spared.
		first = append(first, "auto_vacuum(INCREMENTAL)")
	}
	pragmas := url.Values{"_txlock": {"immediate"}, "_pragma": append(first,
		"journal_mode(WAL)", "synchronous(FULL)",
		"wal_autocheckpoint(0)", // see fold
		fmt.Sprintf("journal_size_limit(%d)", walLimit),
	)}
	if s.under.vfs != "" {
		pragmas.Set("vfs", s.under.vfs)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: abs}).EscapedPath()+"?"+pragmas.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// present refuses to begin anew where there was a queue.
func (s *Store) present() error {
	info, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil && info.Size() > 0 {
		return nil
	}
	what := "empty"
	if err != nil {
		what = "missing"
	}
	if log, err := os.Stat(s.path + "-wal"); err == nil && log.Size() > 0 {
		return fmt.Errorf("%w: it is %s, though there is its log %s-wal", queue.ErrCorrupt, what, s.path)
	}
	n, err := s.files.count()
	if err != nil {
		return err
	}
	if n == 0 {
		mark, err := s.files.marked()
		if err != nil || mark == "" || mark == markNew {
			return err
		}
		return fmt.Errorf("%w: it is %s, though %s says that there was one", queue.ErrCorrupt, what, s.files.path(lockName))
	}
	return fmt.Errorf("%w: it is %s, though there are %d bodies of messages in %s: a new one would lose them", queue.ErrCorrupt, what, n, s.files.dir)
}

func (s *Store) hasTable(ctx context.Context, name string) (bool, error) {
	var n int
	err := s.write.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", name).Scan(&n)
	return n > 0, err
}

// faults returns what a pragma that checks finds.
func (s *Store) faults(ctx context.Context, pragma string) ([]string, error) {
	rows, err := s.write.QueryContext(ctx, pragma)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var faults []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		if line != "ok" && len(faults) < 5 {
			faults = append(faults, line)
		}
	}
	return faults, rows.Err()
}
