package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"tabard/table"
)

// How a watch looks for commits. Whoever commits writes to the database or its
// log, which is an event, and only after that, when the disk has it, the commit
// can be seen: so it is looked for again for a while after each event. The slow
// poll finds what events do not tell, on network file systems for instance.
const (
	lookFirst  = 250 * time.Microsecond // then twice as long each time, up to lookMost
	lookMost   = 8 * time.Millisecond
	lookTotal  = time.Second // a busy disk may take that long
	slowPoll   = time.Second
	blindPoll  = 20 * time.Millisecond // where there are no events at all
	versionSQL = "PRAGMA data_version"
)

// Watch implements table.Watcher. Which rows a commit changed is not known, so
// every change is one of the whole table.
func (t *Table) Watch(ctx context.Context, changed func(table.Change)) error {
	w := watch{t: t, events: new(fsnotify.Watcher), poll: blindPoll}
	if events, err := fsnotify.NewWatcher(); err == nil {
		w.events, w.poll = events, slowPoll
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
	events *fsnotify.Watcher // nil channels when there are no events
	dirs   []string
	files  []string // names of the database; its log's begins with them
	poll   time.Duration
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
	if w.again > 0 {
		pause = w.again
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case ev := <-w.events.Events:
			if !w.ours(ev) {
				continue
			}
			w.event(time.Now())
		case <-w.events.Errors: // lost events: the same as one
			w.event(time.Now())
		case <-timer.C:
			w.looked(time.Now())
		case <-w.t.pool.done:
			return os.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
		return nil
	}
}

// ours reports whether an event may come from a commit or a replacement. What is
// written to other files of the directory does not: a queue beside the tables is
// written to all the time. What appears or goes may be a link on the way to ours.
func (w *watch) ours(ev fsnotify.Event) bool {
	if ev.Op&^(fsnotify.Write|fsnotify.Chmod) != 0 {
		return true
	}
	name := filepath.Base(ev.Name)
	return slices.ContainsFunc(w.files, func(file string) bool { return strings.HasPrefix(name, file) })
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

// watchDirs watches the directories in which the database, or a link to it, could
// be replaced, and its log is written.
func (w *watch) watchDirs() {
	if w.events.Events == nil {
		return
	}
	dirs := []string{filepath.Dir(w.t.pool.path)}
	w.files = []string{filepath.Base(w.t.pool.path)}
	if real, err := filepath.EvalSymlinks(w.t.pool.path); err == nil {
		w.files = append(w.files, filepath.Base(real))
		if filepath.Dir(real) != dirs[0] {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, d := range w.dirs {
		if !slices.Contains(dirs, d) {
			_ = w.events.Remove(d) // already gone is as good
		}
	}
	w.dirs = dirs
	for _, d := range dirs {
		if err := w.events.Add(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.poll = blindPoll
		}
	}
}
