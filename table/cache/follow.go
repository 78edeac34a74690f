package cache

import (
	"context"
	"errors"
	"strings"
	"time"

	"tabard/table"
)

// How soon a watch that was lost is tried again.
const (
	minRewatch = 50 * time.Millisecond
	maxRewatch = time.Second
)

// follow keeps a watch on the backend until ctx ends.
func (c *Cache) follow(ctx context.Context, w table.Watcher) {
	defer close(c.never)
	pause := minRewatch
	for ctx.Err() == nil {
		err := w.Watch(ctx, c.told)
		lost := c.pushed.Swap(false)
		if lost {
			c.all.Add(1)
			pause = minRewatch
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, table.ErrUnsupported):
			c.watch.set(WatchNever, c.o.Clock(), nil)
			return
		case lost:
			c.watch.set(WatchLost, c.o.Clock(), err)
		default:
			c.watch.failed(err)
		}
		if err != nil {
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
		c.watch.set(WatchTold, c.o.Clock(), nil)
	}
	c.journal.add(ch, c.o.Clock())
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
