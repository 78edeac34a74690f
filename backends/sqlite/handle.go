package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"sync"

	_ "modernc.org/sqlite" // the driver
)

const (
	// busyTimeout is how long SQLite itself waits for a writer, in milliseconds.
	// In WAL mode readers do not wait at all.
	busyTimeout = 2000
	maxConns    = 5 // one of them the watch's
)

// handle is one open database file with its prepared statements. Whoever asks
// holds it; a handle that was retired closes when the last one lets go.
type handle struct {
	db    *sql.DB
	file  os.FileInfo
	users sync.WaitGroup

	mu    sync.Mutex
	stmts map[*query]*sql.Stmt
}

// openHandle opens the file for reading. There is no memory-mapped I/O: a file
// that somebody truncates would then end the process with SIGBUS.
func openHandle(path string, info os.FileInfo) (*handle, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	v := url.Values{}
	v.Set("mode", "ro")
	v.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeout))
	v.Add("_pragma", "query_only(1)")
	v.Add("_pragma", "trusted_schema(0)")
	u.RawQuery = v.Encode()
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	return &handle{db: db, file: info, stmts: make(map[*query]*sql.Stmt)}, nil
}

// statement returns q prepared. A failure is not remembered.
func (h *handle) statement(ctx context.Context, q *query) (*sql.Stmt, error) {
	if st := h.known(q, nil); st != nil {
		return st, nil
	}
	// Not under the lock: on a locked database this waits, each for itself.
	st, err := h.db.PrepareContext(ctx, q.sql)
	if err != nil {
		return nil, err
	}
	first := h.known(q, st)
	if first != st {
		st.Close() // somebody was faster
	}
	return first, nil
}

// known returns the statement kept for q; without one, it keeps st.
func (h *handle) known(q *query, st *sql.Stmt) *sql.Stmt {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have := h.stmts[q]; have != nil || st == nil {
		return have
	}
	h.stmts[q] = st
	return st
}

// retire closes the handle once nobody uses it. The caller has made sure that
// nobody new comes.
func (h *handle) retire() {
	h.users.Wait()
	h.db.Close() // read-only: nothing can be lost
}

// pool holds the handle in use and replaces it when the file was replaced or
// overwritten.
type pool struct {
	path    string
	mu      sync.Mutex
	cur     *handle
	retired sync.WaitGroup
	closed  bool
	done    chan struct{} // closed by close
}

// acquire returns a handle on the file as it is now; the caller calls users.Done.
func (p *pool) acquire() (*handle, error) {
	info, err := os.Stat(p.path)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, os.ErrClosed
	}
	if p.cur != nil && (err != nil || !unchanged(p.cur.file, info)) {
		p.drop(p.cur)
	}
	if err != nil {
		return nil, err
	}
	if p.cur == nil {
		if p.cur, err = openHandle(p.path, info); err != nil {
			return nil, err
		}
	}
	p.cur.users.Add(1)
	return p.cur, nil
}

// unchanged reports whether an open handle still shows the file. A connection
// keeps pages, and in WAL mode does not notice when somebody copies another
// database over the file. Checkpoints change the time too; opening anew costs
// less than a millisecond.
func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// drop retires the current handle; p.mu is held.
func (p *pool) drop(h *handle) {
	p.cur = nil
	p.retired.Go(h.retire)
}

// close waits for the questions that are being asked.
func (p *pool) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.done)
	}
	if p.cur != nil {
		p.drop(p.cur)
	}
	p.mu.Unlock()
	p.retired.Wait()
}
