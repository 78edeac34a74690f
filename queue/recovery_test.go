package queue_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
)

// When a destination that could not be reached takes a message, those that wait for
// it are tried at once: up to so many, each once, and none that a hold keeps back.
func TestRecovery(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		q := open(t, filepath.Join(dir, "queue.db"), queue.Options{Retry: []time.Duration{time.Hour}, MaxDeferred: 3}, &local{})
		w := q.relayer()
		fail := func(n int, domain string, r queue.Result) {
			for i := range n {
				q.enqueue(message("a@x.example", fmt.Sprintf("%d@%s", i, domain)), text)
				done(t, w, takeOne(t, w), r)
			}
		}
		unreached := queue.Result{Outcome: queue.Deferred, Text: "connection refused"}
		fail(4, "y.example", unreached)
		fail(1, "other.example", unreached)
		fail(1, "grey.example", queue.Result{Outcome: queue.Deferred, Code: 450})
		if _, err := q.Hold(t.Context(), queue.Hold{Kind: queue.HoldSender, Value: "z.example"}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		answers := func() {
			for _, domain := range []string{"grey.example", "y.example"} {
				q.enqueue(message("a@x.example", "new@"+domain), text)
				done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
			}
		}
		answers()
		for range 3 {
			j := takeOne(t, w)
			if j.Domain != "y.example" || j.Envelopes[0].Attempts != 1 {
				t.Errorf("tried again: %+v", j.Envelopes)
			}
			done(t, w, j, unreached)
		}
		answers()
		idle(t, w)
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("after %v", took)
		}
	})
}

// What is held meanwhile stays so, and with -1 nothing is tried before its time.
func TestNoRecovery(t *testing.T) {
	for name, o := range map[string]queue.Options{"held": {}, "none": {MaxDeferred: -1}} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			o.Retry = []time.Duration{time.Hour}
			q := open(t, filepath.Join(dir, "queue.db"), o, &local{})
			w := q.relayer()
			q.enqueue(message("a@x.example", "b@y.example"), text)
			done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred})
			if name == "held" {
				if _, err := q.Hold(t.Context(), queue.Hold{Kind: queue.HoldSender, Value: "a@x.example"}); err != nil {
					t.Fatal(err)
				}
			}
			q.enqueue(message("c@x.example", "b@y.example"), text)
			done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
			idle(t, w)
			if l := q.list(); len(l) != 1 || l[0].Envelope.Attempts != 1 {
				t.Errorf("%s: %+v", name, l)
			}
		})
	}
}
