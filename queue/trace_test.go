package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

// stagesOf prints the names of stages.
func stagesOf(p queue.Passed) string {
	var names []string
	for _, s := range p {
		names = append(names, s.Stage)
	}
	return strings.Join(names, " ")
}

func TestTrace(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Retry: []time.Duration{time.Nanosecond}})
	s := message("a@b.example", "x@one.example")
	s.Message.ID = 0x1122334455667788
	s.Spent[queue.StepAccept], s.Spent[queue.StepMatch] = 3*time.Second, time.Millisecond
	if err := r.Enqueue(context.Background(), s, []byte("body")); err != nil {
		t.Fatal(err)
	}
	w := r.relayer()
	for _, outcome := range []queue.Outcome{queue.Deferred, queue.Delivered} {
		job := takeOne(t, w)
		res := queue.Result{ID: job.Envelopes[0].ID, Outcome: outcome, Code: 250, Text: "said", Remote: "mx.example"}
		res.Spent[queue.StepTransfer] = 5 * time.Second
		if err := w.Done(context.Background(), []queue.Result{res}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Trace(context.Background(), s.Message.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Accepted.IsZero() || stagesOf(got.Inbound) != "accept match commit-wait commit" {
		t.Errorf("inbound: %v %v", got.Accepted, got.Inbound)
	}
	if len(got.Attempts) != 2 || got.Attempts[0].Outcome != "TempFail" || got.Attempts[1].Outcome != "Ok" {
		t.Fatalf("attempts: %+v", got.Attempts)
	}
	for _, a := range got.Attempts {
		if stagesOf(a.Passed) != "schedule-wait transfer ack" || a.Text != "250 said" || a.Remote != "mx.example" || a.Taken.IsZero() {
			t.Errorf("attempt: %+v", a)
		}
	}
	if _, err := r.Trace(context.Background(), 1); !errors.Is(err, rpc.ErrNotFound) {
		t.Errorf("another message: %v", err)
	}
	p, err := r.Profile(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got := r.numbers("tabard_stage_seconds"); got["accept"] == 0 || got["ack"] == 0 || got["tls"] != 0 {
		t.Errorf("metrics: %v", got)
	}
	for _, s := range p.Stages {
		want := map[string]uint64{"accept": 1, "match": 1, "commit-wait": 1, "commit": 1, "schedule-wait": 2, "transfer": 2, "ack": 2}[s.Stage]
		if s.Count() != want {
			t.Errorf("%s: %d passes, want %d", s.Stage, s.Count(), want)
		}
		if half := s.Percentile(50); s.Stage == "transfer" && (half < 5*time.Second || half > 6*time.Second) {
			t.Errorf("transfer took %s, want 5 s", half)
		}
	}
}

// TestTraceBounds: what a message that is never delivered leaves is bounded.
func TestTraceBounds(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Retry: []time.Duration{time.Nanosecond}})
	r.enqueue(message("a@b.example", "x@one.example"), "body")
	w := r.relayer()
	const more = 3
	var id queue.EnvelopeID
	for range 64 + more {
		job := takeOne(t, w)
		id = job.Envelopes[0].ID
		if err := w.Done(context.Background(), []queue.Result{{ID: id, Outcome: queue.Deferred, Text: "later"}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Trace(context.Background(), id.Message)
	if err != nil || len(got.Attempts) != 64 || got.Missing != more {
		t.Errorf("%d attempts, %d missing, %v", len(got.Attempts), got.Missing, err)
	}
}

func TestStageCount(t *testing.T) {
	t.Parallel()
	earlier := queue.StageCount{Stage: "tls", Spans: [][2]uint64{{10, 1}, {20, 4}}}
	now := queue.StageCount{Stage: "tls", Spans: [][2]uint64{{10, 1}, {20, 6}, {1000, 8}}}
	left := now.Minus(earlier)
	if got := fmt.Sprint(left.Stage, left.Spans); got != "tls[[20 2] [1000 8]]" {
		t.Errorf("difference: %s", got)
	}
	for p, want := range map[float64]time.Duration{1: 20, 20: 20, 50: 1000, 100: 1000} {
		if got := left.Percentile(p); got != want*time.Microsecond {
			t.Errorf("percentile %v: %v, want %v us", p, got, want)
		}
	}
	var none queue.StageCount
	if none.Percentile(99) != 0 || none.Count() != 0 {
		t.Error("nothing was counted, and yet")
	}
}

// TestSpans: each number is in a span that ends above it, by an eighth at most.
func TestSpans(t *testing.T) {
	t.Parallel()
	for us := uint64(0); us < 1<<39; us += us/100 + 1 {
		end := queue.SpanEnd(queue.SpanOf(us))
		if end <= us || end > us+us/8+1 {
			t.Fatalf("%d us are in the span below %d", us, end)
		}
		if i := queue.SpanOf(us); queue.SpanOf(us+1) < i {
			t.Fatalf("spans do not rise at %d us", us)
		}
	}
	if end := queue.SpanEnd(queue.SpanOf(1 << 60)); end != 1<<40 {
		t.Errorf("the last span ends at %d", end)
	}
}
