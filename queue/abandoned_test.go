package queue_test

import (
	"context"
	"path/filepath"
	"testing"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// searching is a store that finds what the process before had in memory when it is let.
type searching struct {
	queue.Store
	found chan struct{}
}

func (s *searching) Abandoned(ctx context.Context, after queue.EnvelopeID, limit int) ([]queue.EnvelopeID, error) {
	select {
	case <-s.found:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Store.Abandoned(ctx, after, limit)
}

// What a process left in memory is found again beside all else: new mail does not wait
// until a large queue has been looked through.
func TestStartDoesNotSearch(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	r := open(t, path, queue.Options{}, &local{})
	r.enqueue(message("a@x.example", "old@y.example"), text)
	r.stop()
	store, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s := &searching{Store: store, found: make(chan struct{})}
	r = openOn(t, s, queue.Options{}, &local{})
	r.enqueue(message("a@x.example", "new@y.example"), text)
	w := r.relayer()
	if j := takeOne(t, w); addresses(j) != "new@y.example" {
		t.Errorf("took %s", addresses(j))
	}
	// Nothing is in its way when it is steered meanwhile, either.
	if n, refused := r.steer(queue.Steer{Op: queue.OpHold, Filter: queue.Filter{Recipient: []string{"old@y.example"}}}); n != 1 {
		t.Errorf("held %d, %v", n, refused)
	}
	if n, refused := r.steer(queue.Steer{Op: queue.OpRelease}); n != 1 {
		t.Errorf("released %d, %v", n, refused)
	}
	close(s.found)
	if j := takeOne(t, w); addresses(j) != "old@y.example" {
		t.Errorf("took %s", addresses(j))
	}
}
