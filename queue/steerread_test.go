package queue_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// watched is a store that remembers from where it was read, and can be stopped after a
// query has its answer.
type watched struct {
	queue.Store
	mu   sync.Mutex
	from []time.Time

	stop    chan struct{} // if set, the next query with an answer waits
	stopped chan struct{}
	next    chan struct{} // has a value when the store was asked for the next attempt
}

func (s *watched) Due(ctx context.Context, q queue.DueQuery) ([]queue.Stored, error) {
	rows, err := s.Store.Due(ctx, q)
	s.mu.Lock()
	s.from = append(s.from, q.After.Next)
	stop := s.stop
	if len(rows) > 0 {
		s.stop = nil
	}
	s.mu.Unlock()
	if stop != nil && len(rows) > 0 {
		close(s.stopped)
		<-stop
	}
	return rows, err
}

func (s *watched) Next(ctx context.Context, l queue.Lane, t time.Time) (time.Time, error) {
	select {
	case s.next <- struct{}{}:
	default:
	}
	return s.Store.Next(ctx, l, t)
}

// startWatched is a queue with n envelopes that wait for an hour.
func startWatched(t *testing.T, rcpts ...string) (*rig, *watched, queue.Worker) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := &watched{Store: store, next: make(chan struct{}, 1), stopped: make(chan struct{})}
	r := openOn(t, s, queue.Options{Retry: []time.Duration{time.Hour}}, &local{})
	w := r.relayer()
	r.enqueue(message("a@x.example", rcpts...), text)
	for left := len(rcpts); left > 0; {
		j := takeOne(t, w)
		left -= len(j.Envelopes)
		done(t, w, j, queue.Result{Outcome: queue.Deferred, Code: 450, Text: "later"})
	}
	return r, s, w
}

// What a command leaves alone is not read anew, and nothing else that is due is.
func TestRefusalsReadNothingAgain(t *testing.T) {
	t.Parallel()
	begin := time.Now().Add(-time.Minute)
	r, s, w := startWatched(t, "1@y.example", "2@y.example", "3@y.example")
	s.mu.Lock()
	s.from = nil
	s.mu.Unlock()
	if n, refused := r.steer(queue.Steer{Op: queue.OpRelease}); n != 0 || len(refused) != 3 {
		t.Fatalf("%d released, %v", n, refused)
	}
	if n, _ := r.steer(queue.Steer{Op: queue.OpHold, Filter: queue.Filter{Recipient: []string{"1@y.example"}}}); n != 1 {
		t.Fatalf("%d held", n)
	}
	if n, _ := r.steer(queue.Steer{Op: queue.OpRetry, Filter: queue.Filter{Recipient: []string{"2@y.example"}}}); n != 1 {
		t.Fatalf("%d made due", n)
	}
	if j := takeOne(t, w); addresses(j) != "2@y.example" {
		t.Errorf("took %s", addresses(j))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, from := range s.from {
		if !from.IsZero() && from.Before(begin) { // zero: the first look, at the start
			t.Errorf("read from %v on", from)
		}
	}
}

// What a query has read before a command changed it does not get into memory as it was.
func TestSteeredWhileRead(t *testing.T) {
	t.Parallel()
	r, s, w := startWatched(t, "1@y.example")
	stop := make(chan struct{})
	s.mu.Lock()
	s.stop = stop
	s.mu.Unlock()
	r.steer(queue.Steer{Op: queue.OpRetry})
	<-s.stopped
	if n, refused := r.steer(queue.Steer{Op: queue.OpHold}); n != 1 {
		t.Errorf("%d held, %v", n, refused)
	}
	select {
	case <-s.next: // from before
	default:
	}
	close(stop)
	<-s.next // that answer is dealt with
	r.enqueue(message("a@x.example", "2@z.example"), text)
	jobs := take(t, w, 10)
	if addresses(jobs[0]) != "2@z.example" || len(jobs) != 1 {
		t.Errorf("took %d jobs, %s", len(jobs), addresses(jobs[0]))
	}
	if n, _ := r.steer(queue.Steer{Op: queue.OpRelease}); n != 1 {
		t.Errorf("%d released", n)
	}
	if j := takeOne(t, w); addresses(j) != "1@y.example" {
		t.Errorf("took %s", addresses(j))
	}
}
