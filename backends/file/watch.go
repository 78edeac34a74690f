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

const (
	// settle is how long a file must rest before it is read: who writes it in
	// place empties it first.
	settle = 50 * time.Millisecond
	// maxSettle bounds the waiting for a file that never rests.
	maxSettle = time.Second
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
	dirs    []string
	polling *time.Ticker
	rest    <-chan time.Time // fires when the file has rested
	first   time.Time        // of the event that began the waiting
}

func (f *follower) step(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case _, ok := <-f.w.Events:
		if !ok {
			return ctx.Err() == nil
		}
		f.delay()
		return true
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

// delay begins or extends the rest.
func (f *follower) delay() {
	now := time.Now()
	if f.rest == nil {
		f.first = now
	}
	f.rest = time.After(min(settle, max(0, maxSettle-now.Sub(f.first))))
}

// watchDirs watches every directory in which a change could replace the file:
// its own, and those of the links on the way to it.
func (f *follower) watchDirs() {
	if f.w.Events == nil {
		return
	}
	dirs := linkDirs(f.t.path)
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

// linkDirs returns the directories of path and of each link it leads through.
func linkDirs(path string) []string {
	const maxLinks = 40
	var dirs []string
	for range maxLinks {
		dir := filepath.Dir(path)
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		if parent := filepath.Dir(dir); isLink(dir) && !slices.Contains(dirs, parent) {
			dirs = append(dirs, parent)
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
	return dirs
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
