package queue_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
)

// What is retried by hand is tried whatever is known of its destination: by one
// message, alone, so that the others go by what that finds.
func TestRetryByHandIsUrged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{Retry: []time.Duration{time.Hour}, MaxDeferred: -1}, &local{})
		defer r.stop()
		w := r.relayer()
		for _, to := range []string{"1@y.example", "2@y.example", "3@y.example"} {
			r.enqueue(message("a@x.example", to), text)
		}
		unreached := queue.Result{Outcome: queue.Deferred, Text: "connection refused"}
		for range 3 {
			j := takeIn(t, w)
			if j.Urged {
				t.Error("urged without being asked for")
			}
			done(t, w, j, unreached)
		}
		if n, refused := r.steer(queue.Steer{Op: queue.OpRetry, Filter: queue.Filter{Domain: []string{"y.example"}}}); n != 3 {
			t.Fatalf("%d made due, %v", n, refused)
		}
		first := takeIn(t, w)
		if !first.Urged {
			t.Error("not urged")
		}
		idle(t, w)
		begin := time.Now()
		second := takeIn(t, w)
		if alone := time.Since(begin); alone < 5*time.Second || alone > 10*time.Second {
			t.Errorf("alone for %v", alone)
		}
		done(t, w, first, unreached)
		done(t, w, second, unreached)
		done(t, w, takeIn(t, w), unreached)
		for range 3 {
			j := takeIn(t, w)
			if j.Urged {
				t.Error("the attempt after that is urged, too")
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
	})
}
