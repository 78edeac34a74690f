package deliver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tabard/internal/logging/logtest"
	"tabard/lookup"
	"tabard/queue"
)

// start runs Run in the background; wait returns what it returned.
func start(ctx context.Context, q queue.Worker, opt Options) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- Run(ctx, q, opt) }()
	return func() error { return <-done }
}

func TestRunDeliversMany(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	const n = 200
	q := newFakeQueue()
	for i := range n {
		q.jobs <- testJob(i, lookup.Delivery{Method: "maildir", Path: dir}, testBody)
	}
	ctx, cancel := context.WithCancel(t.Context())
	log := &logtest.Buffer{}
	wait := start(ctx, q, Options{Logger: log.Logger(), Hostname: "mx.example"})
	seen := make(map[queue.EnvelopeID]bool)
	for range n {
		r := q.next(t)
		if r.Outcome != queue.Delivered || seen[r.ID] {
			t.Fatalf("result %+v", r)
		}
		seen[r.ID] = true
	}
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if got := files(t, dir); len(got) != n {
		t.Errorf("%d files", len(got))
	}
	want := `msg="mda delivery" evpid=00000000000003e8.0 from=<alice@a.example> to=<bob@b.example> rcpt=<all@b.example> user=bob delay=0s result=Ok stat=Delivered`
	if !strings.Contains(log.String(), want) {
		t.Errorf("log %s", log)
	}
}

// gate is an mda job that says when it began and ends when it is let.
type gate struct{ dir string }

func newGate(t *testing.T) gate {
	t.Helper()
	g := gate{t.TempDir()}
	for _, name := range []string{"begun", "go"} {
		if err := syscall.Mkfifo(filepath.Join(g.dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g gate) job(n int) queue.Job {
	return testJob(n, lookup.Delivery{
		Method: "mda", Home: g.dir, Command: "cat >/dev/null; echo >begun; cat go", Env: []string{"PATH=/usr/bin:/bin"},
	}, testBody)
}

func (g gate) awaitBegun() { _, _ = os.ReadFile(filepath.Join(g.dir, "begun")) }
func (g gate) open()       { _ = os.WriteFile(filepath.Join(g.dir, "go"), nil, 0o600) }

// What runs when the process is stopped is finished and reported.
func TestRunFinishesRunning(t *testing.T) {
	g := newGate(t)
	q := newFakeQueue(g.job(1))
	ctx, cancel := context.WithCancel(t.Context())
	wait := start(ctx, q, Options{Parallel: 1})
	g.awaitBegun()
	cancel()
	g.open()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if r := q.next(t); r.Outcome != queue.Delivered {
		t.Errorf("result %+v", r)
	}
}

// What does not end in time is cut and handed back.
func TestRunCutsAfterGrace(t *testing.T) {
	g := newGate(t)
	q := newFakeQueue(g.job(1))
	ctx, cancel := context.WithCancel(t.Context())
	wait := start(ctx, q, Options{Parallel: 1, Grace: time.Millisecond})
	g.awaitBegun()
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if r := q.next(t); r.Outcome != queue.Returned {
		t.Errorf("result %+v", r)
	}
}

// lateQueue hands out a job after the stop.
type lateQueue struct {
	*fakeQueue
	asked chan struct{}
}

func (l lateQueue) Take(ctx context.Context, _ int) ([]queue.Job, error) {
	close(l.asked)
	<-ctx.Done()
	return []queue.Job{testJob(7, lookup.Delivery{Method: "maildir", Path: "/never"}, testBody)}, nil
}

func TestRunReturnsUntried(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	q := lateQueue{newFakeQueue(), make(chan struct{})}
	wait := start(ctx, q, Options{})
	<-q.asked
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if r := q.next(t); r.Outcome != queue.Returned || r.ID.Message != 1007 {
		t.Errorf("result %+v", r)
	}
}

// manyQueue hands out more than it was asked for.
type manyQueue struct{ *fakeQueue }

func (m manyQueue) Take(ctx context.Context, limit int) ([]queue.Job, error) {
	return m.fakeQueue.Take(ctx, limit+2)
}

func TestRunTooManyJobs(t *testing.T) {
	q := manyQueue{newFakeQueue()}
	for i := range 3 {
		q.jobs <- testJob(i, lookup.Delivery{Method: "maildir", Path: t.TempDir()}, testBody)
	}
	err := Run(t.Context(), q, Options{Parallel: 1})
	if err == nil || !strings.Contains(err.Error(), "3 jobs when asked for 1") {
		t.Errorf("error %v", err)
	}
	outcomes := map[queue.Outcome]int{}
	for range 3 {
		outcomes[q.next(t).Outcome]++
	}
	if outcomes[queue.Returned] < 2 {
		t.Errorf("outcomes %v", outcomes)
	}
}

func TestRunEndsWhenIdle(t *testing.T) {
	g := newGate(t)
	q := newFakeQueue(g.job(1))
	wait := start(t.Context(), q, Options{Idle: 20 * time.Millisecond})
	g.awaitBegun()
	g.open()
	if err := wait(); err != nil {
		t.Error(err)
	}
	if r := q.next(t); r.Outcome != queue.Delivered {
		t.Errorf("result %+v", r)
	}
}

func TestRunTakeFails(t *testing.T) {
	q := newFakeQueue()
	q.takeErr = errors.New("no connection")
	if err := Run(t.Context(), q, Options{}); !errors.Is(err, q.takeErr) {
		t.Errorf("error %v", err)
	}
}

func TestRunReportsAgain(t *testing.T) {
	q := newFakeQueue(testJob(1, lookup.Delivery{Gone: true, Text: "user was removed"}, testBody))
	var calls atomic.Int32
	q.doneErr = func() error {
		if calls.Add(1) < 3 {
			return errors.New("busy")
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait := start(ctx, q, Options{})
	if r := q.next(t); r.Outcome != queue.Failed || r.Enhanced != "5.1.1" || r.Text != "user was removed" {
		t.Errorf("result %+v", r)
	}
	cancel()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

func TestRunCannotReport(t *testing.T) {
	q := newFakeQueue(testJob(1, lookup.Delivery{Gone: true}, testBody))
	bad := errors.New("queue is gone")
	q.doneErr = func() error { return bad }
	log := &logtest.Buffer{}
	if err := Run(t.Context(), q, Options{Logger: log.Logger()}); !errors.Is(err, bad) {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(log.String(), "not reported") {
		t.Errorf("log %s", log)
	}
}

func TestRefusals(t *testing.T) {
	a := testAgent(t, osFS{})
	job := testJob(1, lookup.Delivery{Method: "maildir", Path: t.TempDir(), UID: a.uid + 1}, testBody)
	wantStatus(t, a.try(t, job), queue.Deferred, "4.3.0", fmt.Sprintf("as uid %d", a.uid+1))
	a.opt.AnyUser = true
	wantStatus(t, a.try(t, job), queue.Delivered, "2.0.0", "")

	job.Delivery = &lookup.Delivery{Method: "pigeon", UID: -1}
	wantStatus(t, a.try(t, job), queue.Failed, "5.3.5", "pigeon")
	job.Delivery = nil
	wantStatus(t, a.try(t, job), queue.Deferred, "4.3.0", "not a job for local delivery")
}

func TestLogIsOneLine(t *testing.T) {
	log := &logtest.Buffer{}
	a := newAgent(newFakeQueue(), Options{Logger: log.Logger()}.withDefaults(), osFS{})
	job := testJob(1, lookup.Delivery{Gone: true, Text: "a\r\nb\x1b[0m", User: "x\ny"}, testBody)
	job.Message.Sender, job.Envelopes[0].Recipient = "a\nb@c", job.Envelopes[0].Address
	p := newParcel(a.worker, job, job.Envelopes[0])
	a.logResult(p, a.deliver(t.Context(), p))
	if got := log.String(); strings.Count(got, "\n") != 1 || strings.ContainsAny(got, "\x1b\r") || strings.Contains(got, `\n`) || !strings.Contains(got, "rcpt=<->") {
		t.Errorf("log %q", got)
	}
}
