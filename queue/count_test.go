package queue_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
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

// forgetful is a store whose counts fail a few times, at their end and at their begin.
type forgetful struct {
	queue.Store
	ends, begins atomic.Int64 // how many are still to fail
}

var errCount = errors.New("disk I/O error")

func (s *forgetful) Count(ctx context.Context) (func() (messages, envelopes int64, err error), error) {
	count, err := s.Store.Count(ctx)
	switch {
	case err != nil:
		return nil, err
	case s.ends.Add(-1) >= 0:
		return func() (int64, int64, error) {
			_, _, err := count()
			return 0, 0, errors.Join(errCount, err)
		}, nil
	case s.begins.Add(-1) >= 0:
		_, _, err := count()
		return nil, errors.Join(errCount, err)
	}
	return count, nil
}

// A count of what was there at the start that fails is tried again, with pauses. Until it
// succeeds nobody is told numbers that are not true; then they are exact.
func TestCountIsTriedAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	r := open(t, path, queue.Options{}, &local{})
	r.enqueue(message("a@x.example", "1@y.example", "2@y.example"), text)
	r.enqueue(message("a@x.example", "3@y.example"), text)
	r.stop()
	synctest.Test(t, func(t *testing.T) {
		store, err := sqlite.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		s := &forgetful{Store: store}
		s.ends.Store(2)
		s.begins.Store(1)
		r := openOn(t, s, queue.Options{}, &local{})
		defer r.stop()
		synctest.Wait()
		for _, later := range []time.Duration{0, time.Second, 2 * time.Second} {
			time.Sleep(later)
			synctest.Wait()
			_, stats := r.Stats(t.Context())
			_, counts := r.Counts(t.Context())
			_, bodies := r.Bodies(t.Context())
			for what, err := range map[string]error{"stats": stats, "counts": counts, "bodies": bodies} {
				if !errors.Is(err, errCount) {
					t.Errorf("%s after %v more: %v", what, later, err)
				}
			}
			r.enqueue(message("a@x.example", "4@y.example"), text)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		r.enqueue(message("a@x.example", "5@y.example", "6@y.example"), text)
		if got := r.stats(); got.Messages != 6 || got.Envelopes != 8 || got.Enqueued != 5 {
			t.Errorf("%+v", got)
		}
		if _, err := r.Counts(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
