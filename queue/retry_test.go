package queue_test

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
)

// schedule runs a message that is deferred n times with a clock of its own, and
// returns its age at each attempt.
func schedule(t *testing.T, o queue.Options, e queue.Envelope, n int, r queue.Result) (ages []time.Duration) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &local{}
		q := open(t, filepath.Join(dir, "queue.db"), o, l)
		s := message("a@x.example")
		s.Recipients = []queue.Envelope{e}
		begin := time.Now()
		q.enqueue(s, text)
		w := q.relayer()
		if !e.Relay {
			var release func()
			w, release = q.LocalWorker(1000)
			defer release()
		}
		for range n {
			j, err := w.Take(context.Background(), 1)
			if err != nil {
				t.Fatal(err)
			}
			ages = append(ages, time.Since(begin))
			if len(j[0].Envelopes) != 1 || j[0].Envelopes[0].Attempts != len(ages)-1 {
				t.Fatalf("attempt %d: %+v", len(ages), j[0].Envelopes)
			}
			r.Outcome = queue.Deferred
			done(t, w, j[0], r)
		}
		q.stop()
	})
	return ages
}

// near checks that got is want, and at most a tenth of the last pause more.
func near(t *testing.T, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d attempts, want %d: %v", len(got), len(want), got)
	}
	for i := range got {
		pause := want[i]
		if i > 0 {
			pause -= want[i-1]
		}
		if got[i] < want[i] || got[i] > want[i]+pause/10+time.Second {
			t.Errorf("attempt %d after %v, want %v (all: %v)", i+1, got[i], want[i], got)
		}
	}
}

func TestQuadraticRetries(t *testing.T) {
	step := 400 * time.Second
	near(t, schedule(t, queue.Options{}, relay("b@y.example"), 6, queue.Result{}),
		0, step, 4*step, 9*step, 16*step, 25*step)
	step = 10 * time.Second
	near(t, schedule(t, queue.Options{}, mailbox("ann"), 5, queue.Result{}),
		0, step, 4*step, 9*step, 16*step)
}

func TestConfiguredRetries(t *testing.T) {
	ages := schedule(t, queue.Options{Retry: []time.Duration{time.Minute, time.Hour}}, relay("b@y.example"), 5, queue.Result{})
	for i, want := range []time.Duration{time.Minute, time.Hour, time.Hour, time.Hour} {
		if pause := ages[i+1] - ages[i]; pause < want || pause > want+want/10+time.Second {
			t.Errorf("pause %d: %v, want %v", i+1, pause, want)
		}
	}
}

func TestNotBefore(t *testing.T) {
	e := relay("b@y.example")
	var at time.Time
	synctest.Test(t, func(t *testing.T) { at = time.Now().Add(10 * time.Hour) })
	near(t, schedule(t, queue.Options{}, e, 2, queue.Result{NotBefore: at}), 0, 10*time.Hour)
}

func TestRetriesSurviveAReopening(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{}, &local{})
		begin := time.Now()
		r.enqueue(message("a@x.example", "b@y.example"), text)
		w := r.relayer()
		done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Code: 450, Enhanced: "4.2.0", Text: "4.2.0 later\r\nplease"})
		r = r.reopen(queue.Options{})
		w2, release := r.RelayWorker()
		defer release()
		jobs, err := w2.Take(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(begin); math.Abs(age.Seconds()-420) > 22 {
			t.Errorf("second attempt after %v", age)
		}
		if e := jobs[0].Envelopes[0]; e.Attempts != 1 || e.LastError != "450 4.2.0 later please" {
			t.Errorf("envelope: %+v", e)
		}
		r.stop()
	})
}

// A message is tried until it expires, its sender warned once, and told then.
func TestExpiry(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{TTL: 24 * time.Hour}, &local{})
		begin := time.Now()
		r.enqueue(message("a@x.example", "b@y.example"), text)
		w, release := r.RelayWorker()
		defer release()
		var warned, expired time.Duration
		attempts := 0
		for expired == 0 {
			jobs, err := w.Take(context.Background(), 1)
			if err != nil {
				t.Fatal(err)
			}
			switch j := jobs[0]; {
			case j.Message.Sender != "":
				attempts++
				done(t, w, j, queue.Result{Outcome: queue.Deferred, Code: 451, Enhanced: "4.4.1", Text: "try later", Remote: "mx.y.example"})
			case strings.Contains(string(j.Body), "Action: delayed"):
				if warned != 0 {
					t.Error("warned twice")
				}
				warned = time.Since(begin)
				done(t, w, j, queue.Result{Outcome: queue.Delivered})
			default:
				expired = time.Since(begin)
				for _, want := range []string{"Action: failed", "Status: 4.4.7", "try later"} {
					if !strings.Contains(string(j.Body), want) {
						t.Errorf("bounce lacks %q:\n%s", want, j.Body)
					}
				}
				done(t, w, j, queue.Result{Outcome: queue.Delivered})
			}
		}
		if warned < 4*time.Hour || warned > 6*time.Hour {
			t.Errorf("warned after %v", warned)
		}
		if expired < 24*time.Hour || expired > 24*time.Hour+time.Minute {
			t.Errorf("expired after %v", expired)
		}
		if attempts < 13 || attempts > 16 { // 400 n^2 s within a day: n < 14.7
			t.Errorf("%d attempts", attempts)
		}
		synctest.Wait() // a report is counted after it can be taken
		if s := r.stats(); s.Messages != 0 || s.Expired != 1 || s.Bounced != 2 {
			t.Errorf("stats: %+v", s)
		}
		r.stop()
	})
}

// The queue was down while a message expired: it is not tried, but bounced.
func TestExpiredWhileDown(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := open(t, filepath.Join(dir, "queue.db"), queue.Options{}, &local{})
		e := relay("b@y.example")
		e.Action = "brief" // ttl 1 h
		s := message("a@x.example")
		s.Recipients = []queue.Envelope{e}
		r.enqueue(s, text)
		r.stop()
		time.Sleep(61 * time.Minute)
		r = open(t, r.path, queue.Options{}, r.local)
		w, release := r.RelayWorker()
		defer release()
		jobs, err := w.Take(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if j := jobs[0]; j.Message.Sender != "" || addresses(j) != "a@x.example" {
			t.Errorf("job: %+v", j)
		}
		r.stop()
	})
}
