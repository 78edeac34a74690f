package queue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// readingStore counts how often a body is read, and verified.
type readingStore struct {
	queue.Store
	reads atomic.Int64
}

func (s *readingStore) Body(ctx context.Context, id queue.MessageID) (queue.Body, error) {
	s.reads.Add(1)
	return s.Store.Body(ctx, id)
}

func startReading(t *testing.T) (*rig, *readingStore) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := &readingStore{Store: store}
	return openOn(t, s, queue.Options{}, &local{}), s
}

// A body that is a column, but too large for one answer, is read from the store once,
// however many pieces and deliveries it is read in.
func TestColumnInPiecesIsReadOnce(t *testing.T) {
	t.Parallel()
	r, store := startReading(t)
	if err := stream(t, r, message("a@x.example", "b@y.example", "c@z.example"), queue.ColumnBody); err != nil {
		t.Fatal(err)
	}
	w := r.relayer()
	jobs := []queue.Job{takeOne(t, w), takeOne(t, w)}
	for _, j := range jobs {
		if size, sum := readBody(t, w, j); size != queue.ColumnBody || sum != wantSum(queue.ColumnBody) {
			t.Errorf("read %d bytes, sum %x", size, sum)
		}
	}
	if n := store.reads.Load(); n != 1 {
		t.Errorf("the store was asked for the body %d times", n)
	}
	done(t, w, jobs[0], queue.Result{Outcome: queue.Deferred})
	if size, _ := readBody(t, w, jobs[1]); size != queue.ColumnBody {
		t.Errorf("with one of two leases: read %d bytes", size)
	}
	done(t, w, jobs[1], queue.Result{Outcome: queue.Deferred})
	if _, err := w.Body(t.Context(), jobs[1].Message.ID, 0, 1); err == nil {
		t.Error("read without a lease")
	}
}

// Mail that is removed by hand in the middle of its delivery can be read to the end,
// whatever its size: the attempt is not called back.
func TestRemovedMailIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	for _, size := range []int{queue.ColumnBody, queue.ColumnBody + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			r, _ := startReading(t)
			if err := stream(t, r, message("a@x.example", "b@y.example"), size); err != nil {
				t.Fatal(err)
			}
			w := r.relayer()
			j := takeOne(t, w)
			if r.remove(j.Message.ID, -1) != 1 {
				t.Fatal("not removed")
			}
			if n, sum := readBody(t, w, j); n != int64(size) || sum != wantSum(size) {
				t.Errorf("read %d bytes, sum %x", n, sum)
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		})
	}
}

// What columns keep in memory is bounded, and each can be read all the same.
func TestColumnsInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	r, store := startReading(t)
	const size = queue.ColumnBody
	const n = 8
	for i := range n {
		if err := stream(t, r, message("a@x.example", fmt.Sprintf("b@y%d.example", i)), size); err != nil {
			t.Fatal(err)
		}
	}
	w := r.relayer()
	queue.KeepColumns(w, 4*size)
	var jobs []queue.Job
	for len(jobs) < n {
		jobs = append(jobs, take(t, w, n)...)
	}
	for range 2 {
		for _, j := range jobs {
			if size, sum := readBody(t, w, j); size != queue.ColumnBody || sum != wantSum(queue.ColumnBody) {
				t.Fatalf("read %d bytes, sum %x", size, sum)
			}
		}
	}
	// All at first, two of which stay; two more that stay when they are read; and four
	// again for each of two pieces and the end, twice.
	if reads := store.reads.Load(); reads != n+2+4*3*2 {
		t.Errorf("the store was asked for bodies %d times", reads)
	}
}
