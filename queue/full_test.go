package queue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
	"tabard/queue/sqlite"
)

// fullVar makes the test binary fill a small file system of its own.
const fullVar = "TABARD_QUEUE_TEST_FULL"

// TestDiskFull runs in a mount namespace of its own, in which the queue's
// directory is a file system of 8 MiB. Without the right to make one, the test
// is of SQLite's own limit only (queue/sqlite).
func TestDiskFull(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fullVar+"="+t.TempDir())
	cmd.SysProcAttr = ownMounts()
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), errNoMount) {
		t.Logf("no file system of our own: %v %s", err, out)
		return
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

const errNoMount = "cannot mount"

// fill is the other process' part: it fills the disk, and goes on when there is
// room again.
func fill(dir string) error {
	if err := mountSmall(dir); err != nil {
		return fmt.Errorf("%s: %w", errNoMount, err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store, err := sqlite.Open(ctx, filepath.Join(dir, "queue.db"))
	if err != nil {
		return err
	}
	q, err := queue.New(ctx, store, &local{}, queue.Options{Retry: []time.Duration{time.Second}})
	if err != nil {
		return err
	}
	go q.Run(ctx)
	accepted := map[queue.MessageID]bool{}
	var ids queue.IDSource
	if err := fillUp(q, &ids, accepted); err != nil {
		return err
	}
	// What is there leaves, though nobody else makes room, and is put off before.
	if err := deferAll(ctx, q, len(accepted)); err != nil {
		return fmt.Errorf("put off: %w", err)
	}
	if err := drain(ctx, q, accepted); err != nil {
		return fmt.Errorf("on the full disk: %w", err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := submitBoth(q, &ids, accepted); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := drain(ctx, q, accepted); err != nil {
		return err
	}
	return q.Close()
}

// fillUp enqueues until neither a small nor a large message fits.
func fillUp(q *queue.Queue, ids *queue.IDSource, accepted map[queue.MessageID]bool) error {
	for _, large := range []bool{true, false} {
		for i := 0; ; i++ {
			id := ids.Next()
			err := submit(q, id, large)
			if errors.Is(err, rpc.ErrNoSpace) {
				break
			}
			if err != nil || i > 10_000 {
				return fmt.Errorf("full disk, message %d: %w", i, err)
			}
			accepted[id] = true
		}
	}
	return nil
}

func submitBoth(q *queue.Queue, ids *queue.IDSource, accepted map[queue.MessageID]bool) error {
	for _, large := range []bool{true, false} {
		id := ids.Next()
		if err := submit(q, id, large); err != nil {
			return err
		}
		accepted[id] = true
	}
	return nil
}

// deferAll puts off every envelope once.
func deferAll(ctx context.Context, q *queue.Queue, n int) error {
	w, release := q.RelayWorker()
	defer release()
	for n > 0 {
		jobs, err := w.Take(ctx, 10)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			n--
			if err := w.Done(ctx, results(j, queue.Result{Outcome: queue.Deferred, Code: 450, Text: strings.Repeat("later ", 100)})); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain delivers exactly what was accepted.
func drain(ctx context.Context, q *queue.Queue, accepted map[queue.MessageID]bool) error {
	w, release := q.RelayWorker()
	defer release()
	for len(accepted) > 0 {
		jobs, err := w.Take(ctx, 10)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if !accepted[j.Message.ID] {
				return fmt.Errorf("%s was refused, or comes twice", j.Message.ID)
			}
			delete(accepted, j.Message.ID)
			if err := w.Done(ctx, results(j, queue.Result{Outcome: queue.Delivered})); err != nil {
				return err
			}
		}
	}
	if s, err := q.Stats(ctx); err != nil || s.Messages != 0 {
		return fmt.Errorf("left: %+v, %w", s, err)
	}
	return nil
}

var errBroken = errors.New("broken disk")

// failing is a store that can be made to refuse every change.
type failing struct {
	queue.Store
	fail  atomic.Bool
	after atomic.Bool // it has stored what it says it has not
}

func (f *failing) Apply(ctx context.Context, changes []*queue.Change) error {
	if f.fail.Load() {
		return errBroken
	}
	err := f.Store.Apply(ctx, changes)
	if f.after.Load() {
		return errBroken
	}
	return err
}

// Results that the store refuses are kept in memory, and stored when it takes
// them: what was delivered is not delivered again.
func TestResultsOutliveAFailingStore(t *testing.T) {
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Store: store}
	r := openOn(t, f, queue.Options{}, &local{})
	ctx := t.Context()
	r.enqueue(message("a@x.example", "b@y.example", "c@z.example"), text)
	w := r.relayer()
	one, two := takeOne(t, w), takeOne(t, w)
	f.fail.Store(true)
	if err := w.Done(ctx, results(one, queue.Result{Outcome: queue.Delivered})); !errors.Is(err, errBroken) {
		t.Errorf("Done: %v", err)
	}
	if err := w.Done(ctx, results(two, queue.Result{Outcome: queue.Failed})); !errors.Is(err, errBroken) {
		t.Errorf("Done: %v", err)
	}
	if err := r.Enqueue(ctx, message("a@x.example", "b@y.example"), nil); !errors.Is(err, errBroken) {
		t.Errorf("Enqueue: %v", err)
	}
	f.fail.Store(false)
	if j := takeOne(t, w); j.Message.Sender != "" { // the bounce of two
		t.Errorf("job: %+v", j)
	}
	eventually(t, "removal", func() bool { return r.stats().Messages == 1 })
}

// readOnly is a store that takes nothing.
type readOnly struct{ queue.Store }

func (readOnly) Writable() error { return queue.ErrReadOnly }

// Who is to hand over mail learns beforehand that none is taken.
func TestAccepting(t *testing.T) {
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t}
	if r.Queue, err = queue.New(t.Context(), readOnly{store}, &local{}, queue.Options{}); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, _, _ := r.client(t)
	eventually(t, "it is known that nothing is taken", func() bool { return errors.Is(c.Accepting(), queue.ErrReadOnly) })
	if st := r.stats(); st.Fault == "" {
		t.Error("the counts say nothing of it")
	}
	ok := start(t, queue.Options{})
	if err := ok.Accepting(); err != nil {
		t.Error(err)
	}
}
