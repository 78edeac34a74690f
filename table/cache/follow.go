package cache

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"tabard/table"
)

// How soon a watch that was lost is tried again.
const (
	minRewatch = 50 * time.Millisecond
	maxRewatch = 5 * time.Second
)

// follow keeps a watch on the backend until ctx ends.
func (c *Cache) follow(ctx context.Context, w table.Watcher) {
	pause := minRewatch
	for ctx.Err() == nil {
		err := w.Watch(ctx, c.told)
		if c.pushed.Swap(false) {
			c.all.Add(1)
			pause = minRewatch
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, table.ErrUnsupported):
			return
		case err != nil:
			c.o.Log.Debug("changes of table are not told for now", "table", c.o.Name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxRewatch)
	}
}

// told takes one call of a watch. The first one of each watch says that it is in
// force: what was learned before may be old and is asked again.
func (c *Cache) told(ch table.Change) {
	if c.pushed.Load() {
		c.changed(ch)
	} else {
		c.all.Add(1)
		c.pushed.Store(true)
	}
	c.watchers.tell(ch)
}

// changed makes what a change may have touched untrue.
func (c *Cache) changed(ch table.Change) {
	switch {
	case int(ch.Service) >= len(c.services) || ch.Service == 0:
		c.all.Add(1)
	case ch.Key == "" || widens(ch):
		c.services[ch.Service].Add(1)
	default:
		c.drop(ch.Service, ch.Key)
	}
}

// widens reports whether an entry answers more keys than its own, or keys that
// are written otherwise.
func widens(ch table.Change) bool {
	switch {
	case ch.Service == table.Domain:
		return strings.Contains(ch.Key, "*")
	case ch.Service == table.AddrName:
		return true // an IPv6 address with and without brackets
	}
	return table.Walked(ch.Service)
}

// drop forgets the answers for one key, and those on their way.
func (c *Cache) drop(s table.Service, text string) {
	text, err := table.NormalKey(s, text)
	if err != nil {
		c.services[s].Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range []key{{opLookup, s, text}, {opCheck, s, text}, {op: opFetch, service: s}} {
		if f := c.flights[k]; f != nil {
			f.doomed = true
			delete(c.flights, k)
		}
		c.entries.Invalidate(k)
	}
}

// watchers are those who want to see changes.
type watchers struct {
	mu  sync.Mutex
	all []chan table.Change
}

func (w *watchers) add(ch chan table.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, ch)
}

func (w *watchers) remove(ch chan table.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = slices.DeleteFunc(w.all, func(c chan table.Change) bool { return c == ch })
}

// tell never waits: one who cannot keep up loses a line on a screen.
func (w *watchers) tell(change table.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range w.all {
		select {
		case ch <- change:
		default:
		}
	}
}

// Changes sends each change that the backend tells, beginning with a zero
// Change when changes are being told, until ctx ends. It returns
// table.ErrUnsupported at once when the backend never tells.
func (c *Cache) Changes(ctx context.Context, changed func(table.Change)) error {
	if _, ok := c.backend.(table.Watcher); !ok {
		return table.ErrUnsupported
	}
	ch := make(chan table.Change, 1024)
	c.watchers.add(ch)
	defer c.watchers.remove(ch)
	for {
		select {
		case change := <-ch:
			changed(change)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
