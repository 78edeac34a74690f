package queue_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// ponderous is a store that counts when it is let.
type ponderous struct {
	queue.Store
	let chan struct{}
}

func (s *ponderous) Count(ctx context.Context) (func() (messages, envelopes int64, err error), error) {
	count, err := s.Store.Count(ctx)
	return func() (messages, envelopes int64, err error) {
		<-s.let
		return count()
	}, err
}

// New mail does not wait until a start has counted what is there. The count is of what
// was there then, and exact.
func TestStartDoesNotCount(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	r := open(t, path, queue.Options{}, &local{})
	r.enqueue(message("a@x.example", "1@y.example", "2@y.example"), text)
	r.enqueue(message("a@x.example", "3@y.example"), text)
	r.stop()
	store, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s := &ponderous{Store: store, let: make(chan struct{})}
	r = openOn(t, s, queue.Options{}, &local{})
	w := r.relayer()
	r.enqueue(message("a@x.example", "4@y.example"), text)
	for range 3 {
		done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if got, err := r.Stats(ctx); err == nil {
		t.Errorf("counted already: %+v", got)
	}
	r.enqueue(message("a@x.example", "5@y.example"), text)
	close(s.let)
	if got := r.stats(); got.Messages != 1 || got.Envelopes != 1 {
		t.Errorf("%+v", got)
	}
}

// Metrics do not say that a queue is empty which is not counted yet.
func TestCountsAreComplete(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	synctest.Test(t, func(t *testing.T) {
		store, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		s := &ponderous{Store: store, let: make(chan struct{})}
		r := openOn(t, s, queue.Options{}, &local{})
		defer r.stop()
		told := make(chan error, 1)
		go func() {
			_, err := r.Counts(t.Context())
			told <- err
		}()
		synctest.Wait()
		select {
		case err := <-told:
			t.Errorf("told before all was counted, %v", err)
			close(s.let)
		default:
			close(s.let)
			if err := <-told; err != nil {
				t.Error(err)
			}
		}
	})
}
