package queue_test

import (
	"context"
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

// Mail that is imported for later is thought of at its time, also when other
// mail of its destination is in memory.
func TestLaterBesideNow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{}, &local{})
		defer r.stop()
		begin := time.Now()
		now := message("a@x.example", "now@d.example")
		r.enqueue(now, text)
		synctest.Wait()
		e := relay("later@d.example")
		e.ID = queue.EnvelopeID{Message: queue.FirstID(begin) + 1}
		e.Created, e.Next, e.Expires = begin, begin.Add(72*time.Hour), begin.Add(90*time.Hour)
		in, err := r.Import(context.Background(), queue.Import{
			Export: "x", Exported: begin, Message: queue.Message{ID: e.ID.Message, Created: begin, Sender: "a@x.example"},
			Envelopes: []queue.Portable{{Envelope: e}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := in.Commit(context.Background()); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		synctest.Wait()
		w, release := r.RelayWorker()
		defer release()
		done(t, w, takeIn(t, w), queue.Result{Outcome: queue.Delivered})
		ctx, cancel := context.WithTimeout(context.Background(), 80*time.Hour)
		defer cancel()
		jobs, err := w.Take(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, age := addresses(jobs[0]), time.Since(begin); got != "later@d.example" || age < 72*time.Hour || age > 73*time.Hour {
			t.Errorf("%s after %v", got, age)
		}
		done(t, w, jobs[0], queue.Result{Outcome: queue.Delivered})
	})
}
