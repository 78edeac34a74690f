// Package file answers from a text file in the syntax of OpenSMTPD's table
// files. It follows changes of the file by itself; a file that is missing or
// does not parse leaves the last good content in force.
package file

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/table"
)

// Table is a table file, kept in memory.
type Table struct {
	name, path string
	options    table.Options
	log        *slog.Logger
	now        atomic.Pointer[static.Table]
	settling   settling
	fault      atomic.Pointer[error] // why the file as it is now is not in force

	reload sync.Mutex  // one reload at a time
	seen   os.FileInfo // of the file last read, good or bad; guarded by reload

	subs   subscribers
	cancel context.CancelFunc
	done   chan struct{}
	closed atomic.Bool
}

var (
	_ table.Backend   = (*Table)(nil)
	_ table.Watcher   = (*Table)(nil)
	_ table.Pinger    = (*Table)(nil)
	_ table.Validator = (*Table)(nil)
)

// Open loads the file and follows it until Close. A file that is missing or
// does not parse is an error here: there is no earlier content to keep.
func Open(ctx context.Context, c config.Table, o table.Options) (table.Backend, error) {
	t, err := open(ctx, c, o, settling{rest, maxRest})
	if err != nil {
		return nil, err // not a nil *Table
	}
	return t, nil
}

func open(ctx context.Context, c config.Table, o table.Options, s settling) (*Table, error) {
	t := &Table{name: c.Name, path: c.Source, options: o, log: o.Logger(), settling: s, done: make(chan struct{})}
	content, info, err := t.read()
	if err != nil {
		return nil, err
	}
	t.now.Store(t.build(content))
	t.seen = info
	// The follower outlives the opening, and ends at Close.
	follow, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	ready := make(chan struct{})
	go t.follow(follow, ready)
	<-ready
	return t, nil
}

// Lookup returns the value of key as one column.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	if t.closed.Load() {
		return nil, os.ErrClosed
	}
	return t.now.Load().Lookup(ctx, s, key)
}

// Check reports whether key matches an entry.
func (t *Table) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	if t.closed.Load() {
		return false, os.ErrClosed
	}
	return t.now.Load().Check(ctx, s, key)
}

// Fetch returns the entries, sorted.
func (t *Table) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	if t.closed.Load() {
		return nil, os.ErrClosed
	}
	return t.now.Load().Fetch(ctx, s)
}

// Validate reports the first entry that a service cannot read.
func (t *Table) Validate(ctx context.Context, s table.Service) error {
	return t.now.Load().Validate(ctx, s)
}

// Ping reports why the file, as it is now, is not in force.
func (t *Table) Ping(context.Context) error {
	if err := t.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the following of the file.
func (t *Table) Close() error {
	t.closed.Store(true)
	t.cancel()
	<-t.done
	return nil
}

// read loads and parses the file.
func (t *Table) read() (content, os.FileInfo, error) {
	f, err := os.Open(t.path)
	if err != nil {
		return content{}, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return content{}, nil, err
	}
	if !info.Mode().IsRegular() {
		return content{}, info, fmt.Errorf("%s: is not a regular file", t.path)
	}
	c, err := parse(f)
	if err != nil {
		return content{}, info, fmt.Errorf("%s: %w", t.path, err)
	}
	return c, info, nil
}

func (t *Table) build(c content) *static.Table {
	if c.mapping {
		return static.NewMap(c.pairs, t.options)
	}
	list := make([]string, len(c.pairs))
	for i, p := range c.pairs {
		list[i] = p.Key
	}
	return static.NewList(list, t.options)
}

// refresh reads the file again if it changed, and puts it in force if it is
// good for every service that the table has been asked for.
func (t *Table) refresh(ctx context.Context) {
	t.reload.Lock()
	defer t.reload.Unlock()
	info, err := os.Stat(t.path)
	if err == nil && t.seen != nil && sameFile(t.seen, info) {
		return
	}
	c, info, err := t.read()
	t.seen = info
	if err != nil {
		t.refuse(err)
		return
	}
	fresh := t.build(c)
	if err := fits(ctx, t.now.Load(), fresh); err != nil {
		t.refuse(fmt.Errorf("%s: %w", t.path, err))
		return
	}
	t.now.Store(fresh)
	t.fault.Store(nil)
	t.log.Info("table reloaded", "table", t.name, "file", filepath.Base(t.path), "entries", len(c.pairs))
	t.subs.notify(table.Change{})
}

// fits reports whether fresh can take the place of old. A first line that lost
// its value would turn every mapping into a list without answers.
func fits(ctx context.Context, old, fresh *static.Table) error {
	if old.Len() > 0 && fresh.Len() > 0 && old.Mapping() != fresh.Mapping() {
		return fmt.Errorf("was a %s and is now a %s", form(old), form(fresh))
	}
	for _, s := range old.InUse() {
		if err := fresh.Validate(ctx, s); err != nil {
			return fmt.Errorf("as %s: %w", s, err)
		}
	}
	return nil
}

func form(t *static.Table) string {
	if t.Mapping() {
		return "mapping"
	}
	return "list"
}

// refuse keeps the old content, and says why once per fault.
func (t *Table) refuse(err error) {
	if old := t.fault.Load(); old != nil && (*old).Error() == err.Error() {
		return
	}
	t.fault.Store(&err)
	t.log.Warn("table file not loaded, the old content stays", "table", t.name, "error", err)
}

func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
