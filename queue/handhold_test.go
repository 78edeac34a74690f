package queue_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// countsHeld is a store that knows how often all that is held was counted.
type countsHeld struct {
	queue.Store
	counted atomic.Int64
}

func (s *countsHeld) Held(ctx context.Context) (map[int64]int64, error) {
	s.counted.Add(1)
	return s.Store.Held(ctx)
}

// A hold by hand ends with the last envelope that it keeps back, and finding that out
// page by page does not count all that is held with each.
func TestHandHoldEndsWithItsLast(t *testing.T) {
	t.Parallel()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	c := &countsHeld{Store: store}
	r := openOn(t, c, queue.Options{}, &local{})
	r.enqueue(message("a@x.example", "b@y.example", "c@y.example", "d@y.example"), text)
	r.steer(queue.Steer{Op: queue.OpHold, Reason: "one"})
	page := queue.Steer{Op: queue.OpRelease, Limit: 2}
	for _, left := range []int64{1, 0} {
		out, err := r.Steer(t.Context(), page)
		if err != nil {
			t.Fatal(err)
		}
		page.After = out.Last
		if n := c.counted.Swap(0); n != 0 {
			t.Errorf("counted %d times", n)
		}
		if n := r.heldCount(); n != left {
			t.Errorf("%d left, want %d", n, left)
		}
		c.counted.Store(0)
	}
	if holds, err := r.Holds(t.Context()); err != nil || len(holds) != 0 {
		t.Errorf("holds left: %+v, %v", holds, err)
	}
}
