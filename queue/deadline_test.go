package queue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tabard/queue"
)

// lived is what happened to a message until nothing of it was left: the ages at which
// it was tried, and the reports about it with theirs.
type lived struct {
	tries   []time.Duration
	reports []string
}

// live defers a message from a clock of its own until nothing is left, or says of it
// what result does.
func live(t *testing.T, o queue.Options, s queue.Submission, result func(age time.Duration) queue.Result) (l lived) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o.Jitter = func(time.Duration) time.Duration { return 0 }
		r := open(t, filepath.Join(dir, "queue.db"), o, &local{})
		begin := time.Now()
		if by := &s.Message.DeliverBy.Time; !by.IsZero() {
			*by = begin.Add(by.Sub(time.UnixMilli(0)))
		}
		r.enqueue(s, text)
		w, release := r.RelayWorker()
		defer release()
		for r.stats().Messages > 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Hour)
			jobs, err := w.Take(ctx, 1)
			if cancel(); err != nil {
				continue // nothing is left, without a report
			}
			j := jobs[0]
			age := time.Since(begin).Round(time.Second)
			if j.Message.Sender != "" {
				l.tries = append(l.tries, age)
				done(t, w, j, result(age))
				synctest.Wait()
				continue
			}
			kind, body := "", string(j.Body)
			for _, field := range []string{"Action: ", "Status: "} {
				_, rest, _ := strings.Cut(body, field)
				value, _, _ := strings.Cut(rest, "\r\n")
				kind += value + " "
			}
			if !s.Message.DeliverBy.Time.IsZero() && !strings.Contains(body, "Deliver-By-Date: ") {
				t.Errorf("report without the date:\n%s", body)
			}
			l.reports = append(l.reports, fmt.Sprintf("%safter %v", kind, age))
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
			synctest.Wait()
		}
		r.stop()
	})
	return l
}

// by is a message that is to be delivered within d.
func by(d time.Duration, notify, trace bool, notifyWords string) queue.Submission {
	s := message("a@x.example", "b@y.example")
	s.Recipients[0].Notify = notifyWords
	s.Message.DeliverBy = queue.DeliverBy{Time: time.UnixMilli(0).Add(d), Notify: notify, Trace: trace}
	return s
}

// A message with a DeliverBy is tried once more shortly before that time; then it goes
// back, or its sender is told.
func TestDeliverBy(t *testing.T) {
	t.Parallel()
	later := func(time.Duration) queue.Result {
		return queue.Result{Outcome: queue.Deferred, Code: 451, Enhanced: "4.4.1", Text: "later", Remote: "mx.y.example"}
	}
	until := func(age time.Duration, keeps bool) func(time.Duration) queue.Result {
		return func(now time.Duration) queue.Result {
			if now < age {
				return later(now)
			}
			return queue.Result{Outcome: queue.Delivered, Code: 250, Enhanced: "2.0.0", Text: "ok", Relayed: true, KeepsTime: keeps}
		}
	}
	const minute = time.Minute
	hour := []time.Duration{time.Hour}
	for _, tt := range []struct {
		name    string
		s       queue.Submission
		o       queue.Options
		result  func(time.Duration) queue.Result
		tries   string
		reports string
	}{
		{"return", by(30*minute, false, false, ""), queue.Options{Retry: hour}, later,
			"[0s 29m0s]", "[failed 5.4.7 after 30m0s]"},
		{"return, nobody to tell", by(30*minute, false, false, "NEVER"), queue.Options{Retry: hour}, later,
			"[0s 29m0s]", "[]"},
		{"return, too short for another try", by(30*time.Second, false, false, ""), queue.Options{Retry: hour}, later,
			"[0s]", "[failed 5.4.7 after 30s]"},
		{"return, expires before", by(30*minute, false, false, ""), queue.Options{Retry: hour, TTL: 10 * minute}, later,
			"[0s]", "[failed 4.4.7 after 10m0s]"},
		{"notify", by(30*minute, true, false, ""), queue.Options{Retry: hour, TTL: 2 * time.Hour}, later,
			"[0s 29m0s 30m0s 1h30m0s]", "[delayed 4.4.1 after 30m0s failed 4.4.7 after 2h0m0s]"},
		{"notify, although not of delays", by(30*minute, true, false, "FAILURE"), queue.Options{Retry: hour}, until(31*minute, true),
			"[0s 29m0s 30m0s 1h30m0s]", "[delayed 4.4.1 after 30m0s]"},
		{"notify, but never", by(30*minute, true, false, "NEVER"), queue.Options{Retry: hour}, until(31*minute, false),
			"[0s 29m0s 30m0s 1h30m0s]", "[]"},
		{"notify, after a warning", by(90*minute, true, false, ""), queue.Options{Retry: hour, WarnIntervals: []time.Duration{time.Hour}}, until(91*minute, true),
			"[0s 1h0m0s 1h29m0s 1h30m0s 2h30m0s]", "[delayed 4.4.1 after 1h0m0s delayed 4.4.1 after 1h30m0s]"},
		{"warnings, the later one first", message("a@x.example", "b@y.example"), queue.Options{Retry: hour, WarnIntervals: []time.Duration{3 * time.Hour, time.Hour}},
			until(4*time.Hour, true), "[0s 1h0m0s 2h0m0s 3h0m0s 4h0m0s]", "[delayed 4.4.1 after 1h0m0s delayed 4.4.1 after 3h0m0s]"},
		{"notify, in time", by(30*minute, true, false, ""), queue.Options{}, until(0, true), "[0s]", "[]"},
		{"notify, relayed to who will not", by(30*minute, true, false, ""), queue.Options{}, until(0, false), "[0s]", "[relayed 2.0.0 after 0s]"},
		{"trace", by(30*minute, false, true, ""), queue.Options{}, until(0, true), "[0s]", "[relayed 2.0.0 after 0s]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := live(t, tt.o, tt.s, tt.result)
			if got := fmt.Sprint(l.tries); got != tt.tries {
				t.Errorf("tried after %s, want %s", got, tt.tries)
			}
			if got := fmt.Sprint(l.reports); got != tt.reports {
				t.Errorf("reports: %s, want %s", got, tt.reports)
			}
		})
	}
}

// Chance is asked for a tenth of each pause; without it the schedule is exact.
func TestJitterIsOptional(t *testing.T) {
	t.Parallel()
	var most []time.Duration
	o := queue.Options{Retry: []time.Duration{time.Minute, time.Hour}, Jitter: func(d time.Duration) time.Duration {
		most = append(most, d)
		return d / 2
	}}
	ages := schedule(t, o, relay("b@y.example"), 4, queue.Result{})
	if got := fmt.Sprint(ages, most); got != "[0s 1m3s 1h4m3s 2h7m3s] [6s 6m0s 6m0s 6m0s]" {
		t.Errorf("ages and bounds: %s", got)
	}
}
