package sqlite

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"tabard/queue"
)

// errSync marks the failed sync of a body's file or directory.
var errSync = errors.New("sync failed")

// health is whether a store may go on. After a failed sync the kernel takes what
// it could not write for clean: the next sync succeeds, and the data is not on
// disk. So nothing may be written or answered by this handle any more; the next
// Open reads the files anew, checks them and rewrites what the log holds.
type health struct {
	mu     sync.Mutex
	err    error
	broken chan struct{} // closed with err

	tolerant bool // nothing is written: damage stops nothing
}

func newHealth() *health { return &health{broken: make(chan struct{})} }

// check returns why nothing goes on; nil: it does.
func (h *health) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Writable implements queue.Store.
func (s *Store) Writable() error { return s.health.check() }

// Broken implements queue.Store.
func (s *Store) Broken() <-chan struct{} { return s.health.broken }

// judge gives an error its identity, as wrap does, and ends the store if it is
// one of those after which nothing can be relied on.
func (h *health) judge(err error) error {
	if err == nil {
		return nil
	}
	err = wrap(err)
	if h.tolerant || !fatal(err) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = fmt.Errorf("%w: %w", queue.ErrBroken, err)
		close(h.broken)
	}
	return h.err
}

// fatal reports whether an error means that data which was written may be gone
// without another sign, or that the database is not what was written.
func fatal(err error) bool {
	if errors.Is(err, errSync) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch code := e.Code(); code {
	case sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC:
		return true
	default:
		return damage(code)
	}
}

// damage reports whether a result code of SQLite says that the file is not a
// sound database.
func damage(code int) bool {
	switch code & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return true
	}
	return code == sqlite3.SQLITE_IOERR_CORRUPTFS
}

// synced names a failed sync as one. A full disk that delays its complaint until
// then is no exception: what was written is lost all the same.
func synced(err error) error {
	if err == nil || errors.Is(err, syscall.EINVAL) { // EINVAL: nothing there that could be synced
		return nil
	}
	return fmt.Errorf("%w: %w", errSync, err)
}
