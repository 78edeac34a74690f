//go:build !linux

package sqlite

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"
)

// notifier tells of writes to files, and of names that come and go in directories.
type notifier struct {
	events chan struct{} // holds one when something happened; nil: there are no events
	w      *fsnotify.Watcher
	dirs   []string
	named  atomic.Bool

	mu    sync.Mutex
	names []string // of files
}

func newNotifier() (*notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	n := &notifier{events: make(chan struct{}, 1), w: w}
	go n.read()
	return n, nil
}

// read tells of events until Close.
func (n *notifier) read() {
	for {
		select {
		case ev, ok := <-n.w.Events:
			if !ok {
				return
			}
			if ev.Op&^(fsnotify.Write|fsnotify.Chmod) != 0 {
				n.named.Store(true)
			} else if !n.ours(filepath.Base(ev.Name)) {
				continue
			}
		case _, ok := <-n.w.Errors: // lost events
			if !ok {
				return
			}
			n.named.Store(true)
		}
		select {
		case n.events <- struct{}{}:
		default:
		}
	}
}

// ours reports whether a file in a watched directory is one of those asked for, or its
// log or journal. A queue beside the tables is written to all the time.
func (n *notifier) ours(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.names, func(file string) bool { return strings.HasPrefix(name, file) })
}

// renamed reports whether names may mean other files than when it was asked before.
func (n *notifier) renamed() bool { return n.named.Swap(false) }

// watch watches these directories and files instead of those before. It reports whether
// everything is seen that happens to them; what is not there needs no watch.
func (n *notifier) watch(dirs, files []string) bool {
	n.mu.Lock()
	n.names = n.names[:0]
	for _, file := range files {
		n.names = append(n.names, filepath.Base(file))
	}
	n.mu.Unlock()
	for _, d := range n.dirs {
		if !slices.Contains(dirs, d) {
			_ = n.w.Remove(d) // already gone is as good
		}
	}
	n.dirs = dirs
	all := true
	for _, d := range dirs {
		if err := n.w.Add(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = false
		}
	}
	return all
}

// local reports whether events tell of everything that is written to a directory: that
// is not known here.
func local(string) bool { return false }

// Close ends the events.
func (n *notifier) Close() error { return n.w.Close() }
