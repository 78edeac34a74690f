package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"tabard/table"
)

// settling is how long a file must rest before it is read: who writes it in place
// empties it first.
type settling struct {
	rest time.Duration
	most time.Duration // that a file is waited for that never rests
}

const (
	rest    = 50 * time.Millisecond
	maxRest = time.Second
	// poll finds what events do not tell: network file systems, directories
	// that were moved away, limits of the kernel.
	poll = 5 * time.Second
)

// follow reloads the file when it changes, until ctx ends. It closes ready when
// no later change can be missed.
func (t *Table) follow(ctx context.Context, ready chan<- struct{}) {
	defer close(t.done)
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.log.Warn("no file events, the file is polled", "table", t.name, "error", err)
		w = &fsnotify.Watcher{}
	} else {
		defer w.Close()
	}
	f := follower{t: t, w: w, polling: time.NewTicker(poll)}
	defer f.polling.Stop()
	f.watchDirs()
	t.refresh(ctx)
	close(ready)
	for f.step(ctx) {
	}
}

// follower is the state of follow.
type follower struct {
	t       *Table
	w       *fsnotify.Watcher // nil channels when there are no events
	dirs    []string          // that are watched
	names   []string          // in them, that lead to the file
	from    string            // what the event before this one renamed
	polling *time.Ticker
	rest    <-chan time.Time // fires when the file has rested
	first   time.Time        // of the event that began the waiting
}

func (f *follower) step(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case e, ok := <-f.w.Events:
		if !ok {
			return ctx.Err() == nil
		}
		if !f.arrived(e) {
			f.delay()
			return true
		}
	case err, ok := <-f.w.Errors:
		if ok && !errors.Is(err, fsnotify.ErrEventOverflow) {
			f.t.log.Warn("file events", "table", f.t.name, "error", err)
		}
	case <-f.rest:
	case <-f.polling.C:
	}
	f.rest = nil
	f.watchDirs()
	f.t.refresh(ctx)
	return true
}

// arrived reports whether something was renamed to the file, or to a link on the
// way to it, which are two events, one after the other. What comes by a rename is
// whole, and need not rest.
func (f *follower) arrived(e fsnotify.Event) bool {
	from := f.from
	f.from = ""
	if e.Has(fsnotify.Rename) && !slices.Contains(f.names, e.Name) {
		f.from = e.Name
		return false
	}
	return from != "" && e.Has(fsnotify.Create) && slices.Contains(f.names, e.Name)
}

// delay begins or extends the rest.
func (f *follower) delay() {
	now := time.Now()
	if f.rest == nil {
		f.first = now
	}
	f.rest = time.After(min(f.t.settling.rest, max(0, f.t.settling.most-now.Sub(f.first))))
}

// watchDirs watches every directory in which a change could replace the file:
// its own, and those of the links on the way to it.
func (f *follower) watchDirs() {
	if f.w.Events == nil {
		return
	}
	dirs, names := way(f.t.path)
	f.names = names
	for _, d := range f.dirs {
		if !slices.Contains(dirs, d) {
			_ = f.w.Remove(d) // already gone is as good
		}
	}
	f.dirs = dirs
	for _, d := range dirs {
		if err := f.w.Add(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			f.t.log.Warn("directory not watched, the file is polled", "table", f.t.name, "error", err)
		}
	}
}

// way returns path and what each link on the way leads to, and the directories
// in which they are.
func way(path string) (dirs, names []string) {
	const maxLinks = 40
	add := func(path string) {
		names = append(names, path)
		if dir := filepath.Dir(path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for range maxLinks {
		add(path)
		dir := filepath.Dir(path)
		if isLink(dir) {
			add(dir)
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return dirs, names
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

// Watch calls changed after each reload until ctx ends or the table is closed.
func (t *Table) Watch(ctx context.Context, changed func(table.Change)) error {
	ch := t.subs.add()
	defer t.subs.remove(ch)
	for {
		select {
		case c := <-ch:
			changed(c)
		case <-ctx.Done():
			return nil
		case <-t.done:
			return nil
		}
	}
}

// subscribers are those who wait for changes.
type subscribers struct {
	mu  sync.Mutex
	all map[chan table.Change]struct{}
}

func (s *subscribers) add() chan table.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[chan table.Change]struct{})
	}
	ch := make(chan table.Change, 1)
	s.all[ch] = struct{}{}
	return ch
}

func (s *subscribers) remove(ch chan table.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, ch)
}

// notify never waits: a change that is not fetched yet already says everything.
func (s *subscribers) notify(c table.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.all {
		select {
		case ch <- c:
		default:
		}
	}
}
