package queue_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"

	"tabard/queue"
	"tabard/queue/sqlite"
)

// doubtful is a store whose first report is durable, though nobody can know: the sync
// after its transaction failed.
type doubtful struct {
	queue.Store
	broken atomic.Bool
	asked  chan struct{}
}

func (d *doubtful) Apply(ctx context.Context, changes []*queue.Change) error {
	if d.broken.Load() {
		return queue.ErrBroken
	}
	err := d.Store.Apply(ctx, changes)
	for _, c := range changes {
		if len(c.Insert) > 0 && c.Insert[0].Staged && c.Insert[0].Message.Sender == "" {
			d.broken.Store(true)
			defer close(d.asked)
			err = queue.ErrBroken
		}
	}
	return err
}

// A report that may be durable keeps its body, which the next process needs then.
func TestReportInDoubtKeepsItsBody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	store, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	d := &doubtful{Store: store, asked: make(chan struct{})}
	q, err := queue.New(t.Context(), d, &local{}, queue.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() {
		q.Run(ctx)
		close(ran)
	}()
	c, err := q.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(bytes.Repeat([]byte("a line of the message\r\n"), 2*queue.InlineBody/20)); err != nil {
		t.Fatal(err)
	}
	s := message("a@x.example", "b@y.example")
	s.Message.Ret = "FULL"
	if err := c.Commit(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w, release := q.RelayWorker()
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Failed, Code: 550, Text: "no"})
	<-d.asked
	release()
	stop()
	<-ran
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	rows, err := again.Find(t.Context(), queue.Query{Limit: 10})
	if err != nil || len(rows) != 1 || rows[0].Message.Sender != "" {
		t.Fatalf("%+v, %v", rows, err)
	}
	body, err := again.Body(t.Context(), rows[0].ID.Message)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
}
