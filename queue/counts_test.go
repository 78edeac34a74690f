package queue_test

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tabard/internal/count"
	"tabard/queue"
	"tabard/queue/sqlite"
)

// numbers returns what the queue counts under a name, by the values of the labels,
// without what is zero.
func (r *rig) numbers(name string) map[string]float64 {
	r.t.Helper()
	values, err := r.Counts(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := count.Check(queue.Counted(), values); err != nil {
		r.t.Fatal(err)
	}
	found := map[string]float64{}
	for i, d := range queue.Counted() {
		for j, n := range values[i] {
			switch {
			case d.Name != name || n == 0:
			case len(d.Series) == 0:
				found[strconv.Itoa(j)] = n
			default:
				found[strings.Join(d.Series[j/d.Width()], " ")] += n
			}
		}
	}
	return found
}

func (r *rig) counts(want map[string]map[string]float64) {
	r.t.Helper()
	for name, want := range want {
		if got := r.numbers(name); !maps.Equal(got, want) {
			r.t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Retry: []time.Duration{time.Hour}})
	w := r.relayer()
	r.enqueue(message("a@b.example", "x@one.example", "y@two.example", "z@three.example"), "body")
	eventually(t, "all are due", func() bool { return r.numbers("tabard_queue_envelopes")["due 0-5m"] == 3 })
	first := takeOne(t, w)
	r.counts(map[string]map[string]float64{
		"tabard_queue_envelopes":                {"delivering 0-5m": 1, "due 0-5m": 2},
		"tabard_queue_messages":                 {"0": 1},
		"tabard_queue_accepted_messages_total":  {"0": 1},
		"tabard_queue_accepted_envelopes_total": {"0": 3},
	})
	done(t, w, first, queue.Result{Outcome: queue.Delivered})
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Code: 450, Text: "later"})
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Failed, Code: 550, Text: "never"})
	bounce := takeOne(t, w)
	done(t, w, bounce, queue.Result{Outcome: queue.Delivered})
	// The store is counted once a second at most.
	eventually(t, "one is deferred", func() bool {
		return maps.Equal(r.numbers("tabard_queue_envelopes"), map[string]float64{"deferred 0-5m": 1})
	})
	r.counts(map[string]map[string]float64{
		"tabard_queue_results_total":            {"delivered": 2, "deferred": 1, "failed": 1},
		"tabard_queue_reports_total":            {"0": 1},
		"tabard_queue_accepted_messages_total":  {"0": 2},
		"tabard_queue_accepted_envelopes_total": {"0": 4},
	})
	delays := r.numbers("tabard_queue_delivery_seconds")
	if n := delays["relay"]; n < 2 || n >= 12 || len(delays) != 1 {
		t.Errorf("%v", delays)
	}
	if age := r.numbers("tabard_queue_oldest_message_age_seconds")["0"]; age <= 0 || age > 60 {
		t.Errorf("oldest: %v", age)
	}
}

// slow is a store that takes its time to count.
type slow struct {
	queue.Store
	entered, free chan struct{}
}

func (s *slow) Depth(ctx context.Context, _ time.Time, _ []time.Time) (queue.Depth, error) {
	s.entered <- struct{}{}
	select {
	case <-s.free:
		return queue.Depth{Deferred: []int64{0, 0, 0, 0, 0, 7}}, nil
	case <-ctx.Done():
		return queue.Depth{}, ctx.Err()
	}
}

// A queue that takes long to count is counted once, however many ask, and they
// get what was known before.
func TestDepthIsCountedOnce(t *testing.T) {
	t.Parallel()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := &slow{Store: store, entered: make(chan struct{}, 10), free: make(chan struct{})}
	r := &rig{t: t}
	if r.Queue, err = queue.New(t.Context(), s, &local{}, queue.Options{}); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 3)
	for range cap(asked) {
		go func() {
			_, err := r.Counts(context.Background())
			asked <- err
		}()
	}
	for range cap(asked) {
		if err := <-asked; err != nil {
			t.Error(err)
		}
	}
	close(s.free)
	eventually(t, "the count", func() bool { return r.numbers("tabard_queue_envelopes")["deferred 3d-"] == 7 })
	if n := len(s.entered); n != 1 {
		t.Errorf("counted %d times", n)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	_, err = r.Counts(context.Background())
	if err != nil && !errors.Is(err, queue.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// An envelope whose report is still to be written waits once: in the store, since
// its result is there.
func TestCountsWhileReporting(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	w := r.relayer()
	r.enqueue(message("a@b.example", "x@one.example"), "body")
	job := takeOne(t, w)
	r.local.set(func(*local) { // until the end of this nobody says where the report goes
		done(t, w, job, queue.Result{Outcome: queue.Failed, Code: 550, Text: "never"})
		eventually(t, "it is counted", func() bool { return r.numbers("tabard_queue_envelopes")["due 0-5m"] > 0 })
		r.counts(map[string]map[string]float64{"tabard_queue_envelopes": {"due 0-5m": 1}})
	})
}
