package queue_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
)

// Mail that is to be released later is not tried before because it was held meanwhile,
// or goes elsewhere (RFC 4865).
func TestFutureReleaseByHand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{}, &local{})
		defer r.stop()
		begin := time.Now()
		s := message("a@x.example", "hold@b.example", "smart@d.example", "held@e.example")
		s.Message.Release = begin.Add(72 * time.Hour)
		r.enqueue(s, text)
		w, release := r.RelayWorker()
		defer release()
		domain := func(d string) queue.Filter { return queue.Filter{Domain: []string{d}} }
		for _, s := range []queue.Steer{
			{Op: queue.OpHold, Filter: domain("b.example")},
			{Op: queue.OpRelease, Filter: domain("b.example")},
			{Op: queue.OpRedirect, Filter: domain("d.example"), Action: "smart"},
			{Op: queue.OpHold, Filter: domain("e.example"), Reason: "wait"},
		} {
			if n, refused := r.steer(s); n != 1 || len(refused) != 0 {
				t.Errorf("%s: %d, %v", s.Op, n, refused)
			}
		}
		if n, _ := r.steer(queue.Steer{Op: queue.OpRelease}); n != 1 {
			t.Errorf("released %d", n)
		}
		for left := 3; left > 0; {
			j := takeIn(t, w)
			if age := time.Since(begin); age < 72*time.Hour || age > 73*time.Hour {
				t.Errorf("%s after %v", addresses(j), age)
			}
			left -= len(j.Envelopes)
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
	})
}
