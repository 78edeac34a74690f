package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tabard/table"
)

// How a watch looks for commits. Whoever commits writes to the database or its
// log, which is an event, and only after that, when the disk has it, the commit
// can be seen: so it is looked for again for a while after each event. The slow
// poll finds what events do not tell: a commit that takes long, or, on network file
// systems, that of another machine. On others there is next to nothing to find when no
// event came for long.
const (
	lookFirst  = 250 * time.Microsecond // then twice as long each time, up to lookMost
	lookMost   = 8 * time.Millisecond
	lookTotal  = time.Second // a busy disk may take that long
	slowPoll   = time.Second
	calmPoll   = time.Minute
	calmAfter  = time.Minute
	blindPoll  = 20 * time.Millisecond // where there are no events at all
	versionSQL = "PRAGMA data_version"
)

// Watch implements table.Watcher. Which rows a commit changed is not known, so
// every change is one of the whole table.
func (t *Table) Watch(ctx context.Context, changed func(table.Change)) error {
	w := watch{t: t, events: new(notifier), poll: blindPoll, calm: blindPoll}
	if events, err := newNotifier(); err == nil {
		w.events = events
		defer events.Close()
	}
	defer w.letGo()
	w.watchDirs()
	if _, err := w.look(ctx); err != nil {
		return err
	}
	changed(table.Change{})
	for {
		if err := w.wait(ctx); err != nil {
			return err
		}
		news, err := w.look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if news {
			changed(table.Change{})
		}
	}
}

// watch is the state of Watch.
type watch struct {
	t      *Table
	events *notifier
	poll   time.Duration // between looks without an event
	calm   time.Duration // the same, when the last event is long ago
	looks

	h       *handle
	conn    *sql.Conn
	ask     *sql.Stmt // versionSQL on conn
	version int64
}

// looks are those after an event.
type looks struct {
	again time.Duration // until the next one; 0: only an event or the poll leads to one
	until time.Time     // of looking again
}

func (l *looks) event(now time.Time) { l.again, l.until = lookFirst, now.Add(lookTotal) }

func (l *looks) looked(now time.Time) {
	if l.again = min(2*l.again, lookMost); now.Add(l.again).After(l.until) {
		l.again = 0
	}
}

// wait returns when it is time to look.
func (w *watch) wait(ctx context.Context) error {
	pause := w.poll
	switch {
	case w.again > 0:
		pause = w.again
	case time.Since(w.until) > calmAfter:
		pause = w.calm
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-w.events.events:
		w.event(time.Now())
		if w.events.renamed() {
			w.watchDirs()
		}
	case <-timer.C:
		w.looked(time.Now())
	case <-w.t.pool.done:
		return os.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// look reports whether somebody committed, or put another file in place, since
// the last look.
func (w *watch) look(ctx context.Context) (bool, error) {
	h, err := w.t.pool.acquire()
	if err != nil {
		return false, err
	}
	if h != w.h {
		return true, w.change(ctx, h)
	}
	h.users.Done() // held already
	version, err := w.read(ctx)
	if err != nil || version == w.version {
		return false, err
	}
	w.version = version
	return true, nil
}

// change goes over to another handle, which it holds until letGo.
func (w *watch) change(ctx context.Context, h *handle) error {
	w.letGo()
	w.h = h
	w.watchDirs()
	var err error
	// data_version compares with what the same connection saw before.
	if w.conn, err = h.db.Conn(ctx); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	if w.ask, err = w.conn.PrepareContext(ctx, versionSQL); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	w.version, err = w.read(ctx)
	return err
}

func (w *watch) read(ctx context.Context) (version int64, err error) {
	if err = w.ask.QueryRowContext(ctx).Scan(&version); err != nil {
		return 0, fmt.Errorf("watch: %w", err)
	}
	return version, nil
}

func (w *watch) letGo() {
	if w.ask != nil {
		_ = w.ask.Close()
		w.ask = nil
	}
	if w.conn != nil {
		_ = w.conn.Close() // it only reads
		w.conn = nil
	}
	if w.h != nil {
		w.h.users.Done()
		w.h = nil
	}
}

// watchDirs watches the database and its log, and the directories in which either, or
// a link on the way, could be replaced.
func (w *watch) watchDirs() {
	if w.events.events == nil {
		return
	}
	path := w.t.pool.path
	dirs, files := []string{filepath.Dir(path)}, []string{path, path + "-wal"}
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		files = append(files, real, real+"-wal")
		if filepath.Dir(real) != dirs[0] {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	if !w.events.watch(dirs, files) {
		w.poll, w.calm = blindPoll, blindPoll
		return
	}
	if w.poll, w.calm = slowPoll, slowPoll; !slices.ContainsFunc(dirs, func(dir string) bool { return !local(dir) }) {
		w.calm = calmPoll
	}
}
