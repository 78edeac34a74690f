package queue_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"tabard/queue"
)

// edit changes the database of a queue that does not run.
func (r *rig) edit(text string, args ...any) {
	r.t.Helper()
	db, err := sql.Open("sqlite", "file:"+r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(text, args...); err != nil {
		r.t.Fatal(err)
	}
}

// takesNothing has a worker take until the end, and look that it gets nothing.
func takesNothing(t *testing.T, w queue.Worker) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	took := make(chan []queue.Job, 1)
	go func() {
		jobs, _ := w.Take(ctx, 10)
		took <- jobs
	}()
	return func() {
		t.Helper()
		cancel()
		if jobs := <-took; len(jobs) != 0 {
			t.Errorf("handed out: %+v", jobs)
		}
	}
}

// Mail waits for its key outside of the memory also when there are as many holds as
// somebody may ask for.
func TestMissingKeyBesideManyHolds(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Coder: coder(t, false, 1)})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	r.stop()
	r.edit(`WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)
		INSERT INTO holds (id, kind, value, reason, created) SELECT i, 'destination', 'h' || i || '.example', '', 0 FROM n`)
	r = r.reopen(queue.Options{Coder: coder(t, false, 2)})
	if _, err := r.Hold(t.Context(), queue.Hold{Kind: queue.HoldSender, Value: "x.example"}); err == nil {
		t.Error("there is room for holds: the test shows nothing")
	}
	w := r.relayer()
	end := takesNothing(t, w)
	eventually(t, "held by its key", func() bool { return r.heldCount() == 1 })
	end()
	r.SetCoder(coder(t, false, 2, 1))
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
}

// Mail that a newer version stored in a way that this one does not know waits for that,
// without an attempt, and however long it takes.
func TestUnknownEncoding(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{TTL: time.Hour})
	r.enqueue(message("a@x.example", "b@y.example", "c@z.example"), text)
	r.stop()
	r.edit("UPDATE messages SET encoding = 'brotli'")
	r = r.reopen(queue.Options{})
	w := r.relayer()
	end := takesNothing(t, w)
	eventually(t, "held", func() bool { return r.heldCount() == 2 })
	end()
	for _, l := range r.list() {
		if e := l.Envelope; e.Attempts != 0 || !e.Held || !strings.Contains(e.HeldFor, "encoding brotli unknown") {
			t.Errorf("listed as %+v", l)
		}
	}
	for _, want := range []string{`level=ERROR msg="message body is stored in a way`, `level=ERROR msg="messages are stored in a way`, "encoding=brotli"} {
		eventually(t, fmt.Sprintf("the log has %q", want), func() bool { return strings.Contains(r.log.String(), want) })
	}
	// Its time is over, and then a version runs that knows: it is what zstd is to this one.
	r.stop()
	r.edit("UPDATE envelopes SET expires = 1000")
	r.edit("UPDATE messages SET encoding = ''")
	r.edit("UPDATE holds SET value = 'zstd' WHERE kind = 'encoding'")
	r = r.reopen(queue.Options{})
	w = r.relayer()
	for range 2 {
		if j := takeOne(t, w); string(j.Body) != text {
			t.Errorf("body %q", j.Body)
		}
	}
	if s := r.stats(); s.Expired != 0 {
		t.Errorf("%+v", s)
	}
}
