package cache

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tabard/table"
)

// What a watch goes through is told, with when and why.
func TestWatchStates(t *testing.T) {
	src := newSource(nil)
	world(t, src, Options{Size: 1 << 20}, func(t *testing.T, c *Cache) {
		begun := time.Now()
		if s := c.Stats(); s.Watch != (Watch{State: WatchTold, Since: begun}) || s.Limit != 1<<20 || s.HitRate != 0 {
			t.Errorf("in force: %+v", s)
		}
		pass(time.Minute)
		src.lose <- errors.New("connection reset")
		synctest.Wait()
		if w := c.Stats().Watch; w != (Watch{WatchLost, begun.Add(time.Minute), "connection reset"}) {
			t.Errorf("lost: %+v", w)
		}
		pass(minRewatch)
		synctest.Wait()
		if w := c.Stats().Watch; w != (Watch{State: WatchTold, Since: begun.Add(time.Minute + minRewatch)}) {
			t.Errorf("again: %+v", w)
		}
		want(t, c, "a", "")
		want(t, c, "a", "")
		want(t, c, "a", "")
		want(t, c, "b", "")
		if s := c.Stats(); s.HitRate != 0.5 {
			t.Errorf("rate: %+v", s)
		}
	})
	quiet := newSource(nil)
	quiet.noWatch = true
	world(t, quiet, Options{}, func(t *testing.T, c *Cache) {
		if w := c.Stats().Watch; w.State != WatchNever || w.Error != "" {
			t.Errorf("never tells: %+v", w)
		}
	})
	// A backend that cannot be watched at all.
	world(t, quiet, Options{}, func(t *testing.T, _ *Cache) {
		c, err := New(struct{ table.Backend }{quiet}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if w := c.Stats().Watch; w.State != WatchNever {
			t.Errorf("not a watcher: %+v", w)
		}
	})
}
