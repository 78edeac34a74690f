package queue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
)

// ranked is a message with a priority.
func ranked(priority int, rcpts ...string) queue.Submission {
	s := message("a@x.example", rcpts...)
	s.Message.Priority = priority
	return s
}

// Within a destination, and between destinations, what is urgent goes first, and
// among that what is more so; but every sixteenth turn is of the last lane.
func TestPriorityGoesFirst(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{First: 100})
	for _, p := range []int{-3, 0, 2, 9, 2, -9} {
		r.enqueue(ranked(p, fmt.Sprintf("p%d@y.example", p)), text)
	}
	r.enqueue(ranked(0, "usual@z.example"), text)
	w := r.relayer()
	var got []int
	for range 7 {
		got = append(got, takeOne(t, w).Message.Priority)
	}
	if fmt.Sprint(got) != "[9 2 2 0 0 -3 -9]" {
		t.Errorf("order of priorities: %v", got)
	}
}

func TestLowPriorityIsNotStarved(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{First: 1000})
	for i := range 100 {
		r.enqueue(ranked(5, fmt.Sprintf("u%d@y.example", i)), text)
	}
	r.enqueue(ranked(0, "usual@y.example"), text)
	r.enqueue(ranked(-1, "low@y.example"), text)
	r.enqueue(ranked(-1, "low@z.example"), text)
	w := r.relayer()
	left := map[string]bool{"usual@y.example": true, "low@y.example": true, "low@z.example": true}
	for turn := range 40 {
		if delete(left, addresses(takeOne(t, w))); len(left) == 0 {
			if turn < 16 {
				t.Errorf("all were out after %d turns: not last", turn)
			}
			return
		}
	}
	t.Errorf("still waiting after 40 turns: %v", left)
}

// However full the memory and the store are of other mail that is due, urgent mail
// comes out at once: new, and after a restart.
func TestUrgentMailPassesABacklog(t *testing.T) {
	t.Parallel()
	for _, priority := range []int{0, -5} {
		t.Run(fmt.Sprint(priority), func(t *testing.T) {
			t.Parallel()
			o := queue.Options{MaxActive: 64, First: 100, Concurrency: 100}
			r := start(t, o)
			for i := range 40 {
				r.enqueue(ranked(priority, numbered(fmt.Sprintf("u%%d@d%d.example", i), 10)...), text)
			}
			r.enqueue(ranked(1, "urgent@d0.example", "urgent@new.example"), text)
			for range 2 {
				w, release := r.RelayWorker()
				seen := map[string]bool{}
				for range 6 {
					j := takeOne(t, w)
					seen[j.Envelopes[0].Address] = true
				}
				if !seen["urgent@d0.example"] || !seen["urgent@new.example"] {
					t.Errorf("the first jobs: %v", seen)
				}
				release()
				r = r.reopen(o)
			}
		})
	}
}

// Reports wait until other mail has gone.
func TestReportsGoLast(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{First: 100})
	r.enqueue(message("a@y.example", "b@y.example"), text)
	w := r.relayer()
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Failed, Code: 550, Text: "no"})
	eventually(t, "report", func() bool { return r.stats().Bounced == 1 })
	r.enqueue(message("x@x.example", "c@y.example"), text)
	if got := addresses(takeOne(t, w)); got != "c@y.example" {
		t.Errorf("first came %s", got)
	}
	if j := takeOne(t, w); j.Message.Sender != "" {
		t.Errorf("then %+v", j.Message)
	}
}

// A message that is to be released later is not tried before, also after a restart;
// its time, that of warnings included, begins then.
func TestFutureRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := queue.Options{TTL: 10 * time.Hour, WarnIntervals: []time.Duration{4 * time.Hour}}
		r := open(t, filepath.Join(dir, "queue.db"), o, &local{})
		begin := time.Now()
		s := message("a@x.example", "b@y.example")
		s.Message.Release = begin.Add(72 * time.Hour)
		r.enqueue(s, text)
		r.enqueue(message("a@x.example", "now@y.example"), text)
		w, release := r.RelayWorker()
		done(t, w, takeIn(t, w), queue.Result{Outcome: queue.Delivered})
		if e := r.list()[0].Envelope; !e.Next.Equal(s.Message.Release) || !e.Created.Equal(s.Message.Release) {
			t.Errorf("envelope: %+v", e)
		}
		release()
		r = r.reopen(o)
		w, release = r.RelayWorker()
		defer release()
		var ages []time.Duration
		for {
			j := takeIn(t, w)
			age := time.Since(begin)
			if j.Message.Sender == "" {
				ages = append(ages, age)
				if done(t, w, j, queue.Result{Outcome: queue.Delivered}); len(ages) == 3 {
					break
				}
				continue
			}
			if len(ages) == 0 {
				ages = append(ages, age)
			}
			done(t, w, j, queue.Result{Outcome: queue.Deferred, Code: 451, Text: "later"})
		}
		for i, want := range []time.Duration{72, 76, 82} { // released, warned, expired
			if got := ages[i]; got < want*time.Hour || got > want*time.Hour+75*time.Minute {
				t.Errorf("event %d after %v, want %v h", i, got, want)
			}
		}
		r.stop()
	})
}

// takeIn waits for a job for as long as a fake clock likes.
func takeIn(t *testing.T, w queue.Worker) queue.Job {
	t.Helper()
	jobs, err := w.Take(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return jobs[0]
}
