package queue_test

import (
	"context"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tabard/internal/eventlog"
	"tabard/internal/eventlog/eventlogtest"
	"tabard/lookup"
	"tabard/queue"
)

// told checks what was told to the event log; ids of messages are left out.
func told(t *testing.T, rec *eventlogtest.Recorder, want string) {
	t.Helper()
	id := regexp.MustCompile(`[0-9a-f]{16}`)
	got := func() string { return id.ReplaceAllString(rec.Lines("session sender domain size"), "M") }
	eventually(t, "the last event", func() bool { return strings.Count(got(), "\n") >= strings.Count(want, "\n") })
	if got := got(); got != want {
		t.Errorf("told\n%swant\n%s", got, want)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	rec := &eventlogtest.Recorder{}
	r := start(t, queue.Options{Events: rec, Retry: []time.Duration{time.Hour}})
	w := r.relayer()
	r.enqueue(message("a@b.example", "x@one.example", "y@two.example", "z@three.example"), "body")
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered, Code: 250, Text: "taken", Remote: "mx.one.example"})
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Code: 450, Text: "later"})
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Failed, Code: 550, Enhanced: "5.1.1", Text: "never\nat all"})
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered}) // the bounce
	waits := r.list()
	if len(waits) != 1 {
		t.Fatalf("%d envelopes", len(waits))
	}
	if n := r.remove(waits[0].Envelope.ID.Message, waits[0].Envelope.ID.N); n != 1 {
		t.Fatalf("removed %d", n)
	}
	// Attempts at these are mta's to tell.
	told(t, rec, `envelope message=M envelope=M.0 address=x@one.example action=out destination=out/one.example
envelope message=M envelope=M.1 address=y@two.example action=out destination=out/two.example
envelope message=M envelope=M.2 address=z@three.example action=out destination=out/three.example
result message=M envelope=M.0 address=x@one.example result=relayed code=250 text=taken
result message=M envelope=M.2 address=z@three.example result=failed code=550 status=5.1.1 text=never at all
message id=M recipients=1 about=M
envelope message=M envelope=M.0 address=a@b.example destination=/b.example
result message=M envelope=M.0 address=a@b.example result=relayed
result message=M envelope=M.1 address=y@two.example result=removed
`)
}

// Local deliveries the queue tells of itself, and an alias with what it stands for.
func TestLocalEvents(t *testing.T) {
	t.Parallel()
	rec := &eventlogtest.Recorder{}
	l := &local{actions: []lookup.ActionInfo{{Name: "gone", Relay: true, TTL: time.Nanosecond}}}
	r := open(t, filepath.Join(t.TempDir(), "queue.db"), queue.Options{Events: rec}, l)
	w, release := r.LocalWorker(1000)
	t.Cleanup(release)
	s := message("", "x@one.example")
	s.Recipients = []queue.Envelope{mailbox("u")}
	s.Recipients[0].Recipient = "alias@local.example"
	r.enqueue(s, "body")
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered, Text: "Delivered"})
	s = message("", "y@one.example") // which expires before its first attempt
	s.Recipients[0].Action = "gone"
	r.enqueue(s, "body")
	told(t, rec, `envelope message=M envelope=M.0 recipient=alias@local.example address=u@local.example action=box destination=box/u
attempt message=M envelope=M.0 recipient=alias@local.example address=u@local.example action=box outcome=ok text=Delivered
result message=M envelope=M.0 recipient=alias@local.example address=u@local.example result=delivered text=Delivered
envelope message=M envelope=M.0 address=y@one.example action=gone destination=gone/one.example
result message=M envelope=M.0 address=y@one.example result=expired status=4.4.7
`)
}

// TestRecordStages: the event log has the stages of messages when that is wanted.
func TestRecordStages(t *testing.T) {
	t.Parallel()
	for _, wanted := range []bool{false, true} {
		events := &eventlogtest.Recorder{}
		r := start(t, queue.Options{Events: events, Stages: wanted})
		r.enqueue(message("a@b.example", "x@one.example"), "body")
		w := r.relayer()
		job := takeOne(t, w)
		if err := w.Done(context.Background(), []queue.Result{{ID: job.Envelopes[0].ID, Outcome: queue.Delivered}}); err != nil {
			t.Fatal(err)
		}
		want := ""
		if wanted {
			want = "trace stage=commit-wait\ntrace stage=commit\ntrace stage=schedule-wait\ntrace stage=ack\n"
		}
		if got := events.Lines("message envelope duration_us", eventlog.KindTrace); got != want {
			t.Errorf("stages %t:\n%s", wanted, got)
		}
	}
}

// TestSteerEvents: what is done to envelopes by hand is in the event log.
func TestSteerEvents(t *testing.T) {
	t.Parallel()
	events := &eventlogtest.Recorder{}
	r := start(t, queue.Options{Events: events})
	for _, to := range []string{"x@one.example", "y@two.example", "z@three.example"} {
		r.enqueue(message("a@b.example", to), "body")
	}
	for _, s := range []queue.Steer{
		{Op: queue.OpRemove, Filter: queue.Filter{Domain: []string{"one.example"}}, Reason: "spam"},
		{Op: queue.OpBounce, Filter: queue.Filter{Domain: []string{"two.example"}}, Reason: "no such user"},
		{Op: queue.OpRedirect, Filter: queue.Filter{Domain: []string{"three.example"}}, Action: "smart"},
	} {
		s.Limit = 10
		done, err := r.Steer(context.Background(), s)
		if err != nil || done.Count != 1 {
			t.Fatalf("%s: %+v, %v", s.Op, done, err)
		}
	}
	got := events.Lines("session sender domain size message envelope", eventlog.KindEnvelope, eventlog.KindResult)
	for _, want := range []string{
		"result address=x@one.example result=removed text=spam\n",
		"result address=y@two.example result=failed text=no such user\n",
		"result address=z@three.example result=removed text=redirected\n",
		"envelope address=z@three.example action=smart destination=smart\n",
	} {
		if strings.Count(strings.ReplaceAll(got, `"`, ""), want) != 1 {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
