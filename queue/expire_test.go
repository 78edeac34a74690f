package queue_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
)

// Mail that lay in memory without a worker until its time was over is returned, not
// delivered late; what still has time is delivered.
func TestExpiredWithoutWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{TTL: 24 * time.Hour}, &local{})
		defer r.stop()
		r.enqueue(message("a@x.example", "late@y.example", "later@z.example"), text)
		time.Sleep(25 * time.Hour)
		r.enqueue(message("b@x.example", "new@y.example"), text)
		w, release := r.RelayWorker()
		defer release()
		if j := takeIn(t, w); addresses(j) != "new@y.example" {
			t.Errorf("took %s", addresses(j))
		} else {
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
		for synctest.Wait(); r.stats().Envelopes > 0; synctest.Wait() {
			j := takeIn(t, w)
			if j.Message.Sender != "" || addresses(j) != "a@x.example" {
				t.Errorf("took %s", addresses(j))
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
		if s := r.stats(); s.Expired != 2 {
			t.Errorf("%+v", s)
		}
	})
}
