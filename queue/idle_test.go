package queue_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// countingStore counts what a queue asks its store, and sees when.
type countingStore struct {
	queue.Store
	asked atomic.Int64
}

func (s *countingStore) Due(ctx context.Context, q queue.DueQuery) ([]queue.Stored, error) {
	s.asked.Add(1)
	return s.Store.Due(ctx, q)
}

func (s *countingStore) Next(ctx context.Context, l queue.Lane, t time.Time) (time.Time, error) {
	s.asked.Add(1)
	return s.Store.Next(ctx, l, t)
}

// A queue with nothing to do does nothing: it wakes when mail is due, and not to see
// whether some is. With no timer left the test's clock would not move at all.
func TestIdleQueueSleeps(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	synctest.Test(t, func(t *testing.T) {
		file, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		store, l := &countingStore{Store: file}, &local{}
		q, err := queue.New(t.Context(), store, l, queue.Options{Retry: []time.Duration{20 * time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() {
			q.Run(ctx)
			close(ran)
		}()
		sleeps := func(what string, d time.Duration) {
			t.Helper()
			synctest.Wait()
			before, asked := store.asked.Load(), l.asked()
			time.Sleep(d)
			synctest.Wait()
			if n, m := store.asked.Load()-before, l.asked()-asked; n > 0 || m > 0 {
				t.Errorf("%s: the store was asked %d times, lookup %d times, in %v", what, n, m, d)
			}
		}
		sleeps("empty", 30*24*time.Hour)
		w, release := q.RelayWorker()
		defer release()
		if err := q.Enqueue(ctx, message("a@x.example", "b@y.example"), []byte(text)); err != nil {
			t.Fatal(err)
		}
		done(t, w, takeIn(t, w), queue.Result{Outcome: queue.Deferred})
		sleeps("one deferred", 19*time.Hour)
		begin := time.Now()
		takeIn(t, w)
		if woke := time.Since(begin); woke < time.Hour || woke > 4*time.Hour {
			t.Errorf("the deferred one came after another %v", woke)
		}
		cancel()
		<-ran
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
}
