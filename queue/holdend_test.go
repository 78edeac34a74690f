package queue_test

import (
	"errors"
	"path/filepath"
	"testing"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// A release that is durable though it failed is one: a hold that only the memory had
// would take back what is due without end. One that is not durable leaves the hold.
func TestReleaseInDoubt(t *testing.T) {
	t.Parallel()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Store: store}
	r := openOn(t, f, queue.Options{}, &local{})
	r.hold(queue.HoldDestination, "y.example", "")
	r.enqueue(message("a@x.example", "b@y.example"), text)
	eventually(t, "held", func() bool { return r.heldCount() == 1 })
	f.fail.Store(true)
	if _, err := r.Release(t.Context(), queue.HoldDestination, "y.example"); !errors.Is(err, errBroken) || r.heldCount() != 1 {
		t.Fatalf("a release that nothing came of: %v", err)
	}
	f.fail.Store(false)
	f.after.Store(true)
	n, err := r.Release(t.Context(), queue.HoldDestination, "y.example")
	f.after.Store(false)
	if n != 1 || err != nil {
		t.Fatalf("released %d, %v", n, err)
	}
	w := r.relayer()
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
}
