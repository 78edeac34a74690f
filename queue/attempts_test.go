package queue_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"tabard/internal/rpc"
	"tabard/queue"
)

// Each deferral is kept with what was said, the last of them, and no longer than the
// envelope.
func TestAttemptsAreKept(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "1@y.example", "2@z.example"), text)
	id := r.list()[0].Envelope.ID.Message
	w := r.relayer()
	for n := range queue.KeptAttempts + 2 {
		j := takeOne(t, w)
		for addresses(j) == "2@z.example" {
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
			j = takeOne(t, w)
		}
		done(t, w, j, queue.Result{Outcome: queue.Deferred, Code: 451, Text: fmt.Sprint("later ", n+1), Remote: "mx.y.example"})
		r.steer(queue.Steer{Op: queue.OpRetry})
	}
	s, err := r.Show(context.Background(), id, -1, 0)
	if err != nil || len(s.Attempts) != queue.KeptAttempts {
		t.Fatalf("%d attempts, %v", len(s.Attempts), err)
	}
	a := s.Attempts[0]
	if a.ID.N != 0 || a.Number != 3 || a.Remote != "mx.y.example" || a.Result != "451 later 3" || !a.Next.After(a.At) {
		t.Errorf("%+v", a)
	}
	p, err := r.Find(context.Background(), queue.Filter{}, queue.EnvelopeID{}, 10)
	if err != nil || !p.List[0].LastTry.Equal(s.Attempts[queue.KeptAttempts-1].At) {
		t.Errorf("%+v, %v", p, err)
	}
	r.stop()
	db := r.sql()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM attempts").Scan(&n); err != nil || n != queue.KeptAttempts {
		t.Errorf("%d kept, %v", n, err)
	}
	if _, err := db.Exec("DELETE FROM envelopes"); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow("SELECT count(*) FROM attempts").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d left, %v", n, err)
	}
}

// sql opens the database of a queue as sqlite3 would.
func (r *rig) sql() *sql.DB {
	r.t.Helper()
	db, err := sql.Open("sqlite", "file:"+r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { db.Close() })
	return db
}

// The queries of docs/queue.md are carried out as they stand there.
func TestDocumentedQueries(t *testing.T) {
	t.Parallel()
	r, _ := deferred(t, "1@example.org", "2@example.org", "3@z.example")
	r.steer(queue.Steer{Op: queue.OpHold, Filter: queue.Filter{Domain: []string{"z.example"}}})
	doc, err := os.ReadFile("../docs/queue.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d blocks", len(blocks))
	}
	db := r.sql()
	for _, b := range blocks {
		for query := range strings.SplitSeq(strings.TrimSpace(b[1]), ";\n") {
			rows, err := db.Query(query)
			if err != nil {
				t.Errorf("%s: %v", query, err)
				continue
			}
			n := 0
			for rows.Next() {
				n++
			}
			if err := rows.Close(); err != nil || n == 0 {
				t.Errorf("%s: %d rows, %v", query, n, err)
			}
		}
	}
}

// A large body is read in pieces, by a connection that has few of them open.
func TestRemoteBody(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	w, err := r.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("0123456789abcde\n", 20_000)
	if _, err := io.WriteString(w, large); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), message("a@x.example", "b@y.example")); err != nil {
		t.Fatal(err)
	}
	admin := r.admin()
	id := r.list()[0].Envelope.ID.Message
	body, err := admin.OpenBody(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
	if err != nil || string(got) != large {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	var open []queue.Body
	for range 10 {
		if b, err := admin.OpenBody(t.Context(), id); err == nil {
			open = append(open, b)
		}
	}
	if len(open) != 3 {
		t.Errorf("%d more are open", len(open))
	}
	for _, b := range append(open, body) {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := body.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("a body that was closed is read")
	}
	out, err := admin.Steer(t.Context(), queue.Steer{Op: queue.OpHold, Limit: 10, Filter: queue.Filter{Sender: []string{"x.example"}}})
	if err != nil || out.Count != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if p, err := admin.Find(t.Context(), queue.Filter{States: []queue.State{queue.StateHeld}}, queue.EnvelopeID{}, 10); err != nil || len(p.List) != 1 || p.More {
		t.Errorf("%+v, %v", p, err)
	}
	if c, err := admin.Count(t.Context(), queue.Filter{}, []queue.Field{queue.FieldState}, 10); err != nil || len(c.Groups) != 1 || c.Groups[0].Values[0] != "held" {
		t.Errorf("%+v, %v", c, err)
	}
}

// admin returns a queue as a tool sees it.
func (r *rig) admin() queue.Admin {
	c, _ := connect(r.t, func(ctx context.Context, conn net.Conn) error {
		srv := rpc.NewServer()
		release, err := queue.RegisterAdmin(srv, r)
		if err != nil {
			return err
		}
		defer release()
		return srv.Serve(ctx, conn)
	})
	return queue.NewRemoteAdmin(c)
}
