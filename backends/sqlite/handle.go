package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"

	_ "modernc.org/sqlite" // the driver

	"tabard/backends/sqltable"
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

	mu      sync.Mutex
	queries map[*sqltable.Query]*prepared
}

// prepared is a query as one database knows it.
type prepared struct {
	one   *sql.Stmt
	width atomic.Int32             // columns, once known; -1: it cannot be asked for many keys
	set   atomic.Pointer[sql.Stmt] // for many keys, once asked for
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
	return &handle{db: db, file: info, queries: make(map[*sqltable.Query]*prepared)}, nil
}

// prepare returns q prepared. A failure is not remembered.
func (h *handle) prepare(ctx context.Context, q *sqltable.Query) (*prepared, error) {
	if p := h.known(q, nil); p != nil {
		return p, nil
	}
	// Not under the lock: on a locked database this waits, each for itself.
	st, err := h.db.PrepareContext(ctx, q.SQL)
	if err != nil {
		return nil, err
	}
	p := h.known(q, &prepared{one: st})
	if p.one != st {
		st.Close() // somebody was faster
	}
	return p, nil
}

// known returns what is kept for q; without that, it keeps p.
func (h *handle) known(q *sqltable.Query, p *prepared) *prepared {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have := h.queries[q]; have != nil || p == nil {
		return have
	}
	h.queries[q] = p
	return p
}

// prepareSet returns the statement that asks p, which is q, for many keys.
func (h *handle) prepareSet(ctx context.Context, p *prepared, q *sqltable.Query, width int) (*sql.Stmt, error) {
	if st := p.set.Load(); st != nil {
		return st, nil
	}
	st, err := h.db.PrepareContext(ctx, setSQL(q, width))
	if err != nil {
		return nil, err
	}
	if !p.set.CompareAndSwap(nil, st) {
		st.Close() // somebody was faster
	}
	return p.set.Load(), nil
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
