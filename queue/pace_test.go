package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"tabard/queue"
)

// idle asserts that a worker gets nothing more at the moment.
func idle(t *testing.T, w queue.Worker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if jobs, err := w.Take(ctx, 100); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %d jobs, %v; want none", len(jobs), err)
	}
}

// takeAll takes until n jobs are there.
func takeAll(t *testing.T, w queue.Worker, n int) []queue.Job {
	t.Helper()
	var all []queue.Job
	for len(all) < n {
		all = append(all, take(t, w, n-len(all))...)
	}
	return all
}

// A destination has as many jobs in flight as its worker asked for last, and few
// before it asked.
func TestWindow(t *testing.T) {
	r := start(t, queue.Options{Concurrency: 6})
	for i := range 20 {
		r.enqueue(message("s@x.example", fmt.Sprintf("%d@y.example", i)), text)
	}
	w := r.relayer()
	jobs := takeAll(t, w, queue.DefaultFirst)
	idle(t, w)
	done(t, w, jobs[0], queue.Result{Outcome: queue.Delivered, Window: 4})
	jobs = append(jobs[1:], takeAll(t, w, 3)...)
	idle(t, w)
	done(t, w, jobs[0], queue.Result{Outcome: queue.Delivered, Window: 1000}) // the queue has a limit of its own
	jobs = append(jobs[1:], takeAll(t, w, 3)...)
	idle(t, w)
	done(t, w, jobs[0], queue.Result{Outcome: queue.Deferred, Window: 1})
	idle(t, w)
	for _, j := range jobs[1:] {
		done(t, w, j, queue.Result{Outcome: queue.Delivered, Window: 1})
	}
	takeAll(t, w, 1)
	idle(t, w)
}

// What a worker said outlives the last mail of the destination.
func TestWindowRemembered(t *testing.T) {
	r := start(t, queue.Options{})
	w := r.relayer()
	r.enqueue(message("s@x.example", "b@y.example"), text)
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered, Window: 3})
	for range 5 {
		r.enqueue(message("s@x.example", "b@y.example"), text)
	}
	takeAll(t, w, 3)
	idle(t, w)
}

// However many destinations do not answer, those that do find room; and the
// strangers find theirs as soon as others come back.
func TestStrangersShare(t *testing.T) {
	r := start(t, queue.Options{Probes: 4})
	w := r.relayer()
	r.enqueue(message("s@x.example", "b@alive.example"), text)
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered, Window: 2})
	for i := range 20 {
		r.enqueue(message("s@x.example", fmt.Sprintf("b@dead%d.example", i)), text)
	}
	dead := takeAll(t, w, 4)
	idle(t, w)
	for range 5 {
		r.enqueue(message("s@x.example", "b@alive.example"), text)
		j := takeOne(t, w)
		if j.Domain != "alive.example" {
			t.Fatalf("job for %s", j.Domain)
		}
		done(t, w, j, queue.Result{Outcome: queue.Delivered, Window: 2})
	}
	idle(t, w)
	done(t, w, dead[0], queue.Result{Outcome: queue.Deferred, Window: 1})
	takeAll(t, w, 1)
	idle(t, w)
}

// A stranger that answers need not wait for a stranger's place any more.
func TestStrangerBecomesKnown(t *testing.T) {
	r := start(t, queue.Options{Probes: 3})
	w := r.relayer()
	for i := range 6 {
		r.enqueue(message("s@x.example", fmt.Sprintf("%d@one.example", i)), text)
	}
	jobs := takeAll(t, w, 2)
	for i := range 6 {
		r.enqueue(message("s@x.example", fmt.Sprintf("b@dead%d.example", i)), text)
	}
	takeAll(t, w, 1)
	idle(t, w)
	done(t, w, jobs[0], queue.Result{Outcome: queue.Delivered, Window: 4})
	seen := map[string]int{}
	for _, j := range takeAll(t, w, 4) {
		seen[j.Domain]++
	}
	if seen["one.example"] != 3 {
		t.Errorf("jobs: %v", seen)
	}
}
