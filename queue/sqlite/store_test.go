package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var epoch = time.UnixMilli(1_000_000)

// put stores one message with envelopes of the given destinations, the n-th due
// n seconds after epoch.
func put(id queue.MessageID, destinations ...string) *queue.Change {
	m := queue.NewMessage{Message: queue.Message{ID: id, Created: epoch, Size: 4}, Body: []byte("body"), Checksum: queue.Checksum(0, []byte("body"))}
	for n, d := range destinations {
		m.Envelopes = append(m.Envelopes, queue.NewEnvelope{
			Envelope:    queue.Envelope{ID: queue.EnvelopeID{Message: id, N: n}, Address: "a@b.example", Created: epoch, Expires: epoch, Next: epoch.Add(time.Duration(n) * time.Second)},
			Destination: d, Lane: queue.LaneUsual,
		})
	}
	return &queue.Change{Insert: []queue.NewMessage{m}}
}

func apply(t testing.TB, s *Store, changes ...*queue.Change) {
	t.Helper()
	if err := s.Apply(context.Background(), changes); err != nil {
		t.Fatal(err)
	}
}

func due(t testing.TB, s *Store, q queue.DueQuery) string {
	t.Helper()
	q.Lane = queue.LaneUsual
	if q.Now.IsZero() {
		q.Now = epoch.Add(time.Hour)
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	rows, err := s.Due(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range rows {
		ids = append(ids, fmt.Sprintf("%d.%d", r.ID.Message, r.ID.N))
	}
	return strings.Join(ids, " ")
}

func TestDue(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	apply(t, s, put(1, "a", "b", "a"), put(2, "b", "c"), put(3, "a", "a"))
	at := func(sec int, d string, m queue.MessageID, n int) queue.Cursor {
		return queue.Cursor{Next: epoch.Add(time.Duration(sec) * time.Second), Destination: d, ID: queue.EnvelopeID{Message: m, N: n}}
	}
	for _, tt := range []struct {
		name string
		q    queue.DueQuery
		want string
	}{
		{"all", queue.DueQuery{}, "1.0 3.0 2.0 3.1 1.1 2.1 1.2"},
		{"now", queue.DueQuery{Now: epoch}, "1.0 3.0 2.0"},
		{"earlier", queue.DueQuery{Now: epoch.Add(-time.Millisecond)}, ""},
		{"limit", queue.DueQuery{Limit: 2}, "1.0 3.0"},
		{"after", queue.DueQuery{After: at(0, "a", 3, 0)}, "2.0 3.1 1.1 2.1 1.2"},
		{"after a time", queue.DueQuery{After: at(1, "\xff", 0, 0)}, "1.2"},
		{"except", queue.DueQuery{Except: []string{"a", "c"}}, "2.0 1.1"},
		{"one destination", queue.DueQuery{Destination: "a"}, "1.0 3.0 3.1 1.2"},
		{"one destination, limit", queue.DueQuery{Destination: "b", Limit: 1}, "2.0"},
		{"unknown destination", queue.DueQuery{Destination: "x"}, ""},
	} {
		if got := due(t, s, tt.q); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct{ after, want time.Time }{
		{time.Time{}, epoch}, {epoch, epoch.Add(time.Second)}, {epoch.Add(2 * time.Second), time.Time{}},
	} {
		if got, err := s.Next(context.Background(), queue.LaneUsual, tt.after); err != nil || !got.Equal(tt.want) {
			t.Errorf("Next(%v) = %v, %v", tt.after, got, err)
		}
	}
}

// What is claimed or held is due for nobody; an update ends the claim, and so
// does the next process.
func TestClaims(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	c := put(1, "a", "a", "a")
	for i := range c.Insert[0].Envelopes {
		c.Insert[0].Envelopes[i].Claimed = true
	}
	apply(t, s, c)
	if got := due(t, s, queue.DueQuery{}); got != "" {
		t.Errorf("claimed, but due: %s", got)
	}
	id := func(n int) queue.EnvelopeID { return queue.EnvelopeID{Message: 1, N: n} }
	apply(t, s, &queue.Change{Update: []queue.Update{
		{ID: id(0), Attempts: 2, Next: epoch, LastError: "e", Warned: 1, Notice: "n"}, {ID: id(1), Next: epoch, Hold: 1},
	}})
	if got := due(t, s, queue.DueQuery{}); got != "1.0" {
		t.Errorf("due: %s", got)
	}
	rows, err := s.Envelopes(context.Background(), 1)
	if err != nil || len(rows) != 3 {
		t.Fatalf("Envelopes: %v, %v", rows, err)
	}
	if r := rows[0]; r.Attempts != 2 || r.LastError != "e" || r.Warned != 1 || r.Notice != "n" || !r.Next.Equal(epoch) || r.Message != rows[2].Message {
		t.Errorf("row: %+v", r)
	}
	if rows[1].Hold != 1 {
		t.Error("not held")
	}
	free := &queue.Change{Due: []queue.EnvelopeID{id(1), {Message: 9}}, DueAt: epoch}
	if apply(t, s, free); free.Affected != 1 || due(t, s, queue.DueQuery{}) != "1.0 1.1" {
		t.Errorf("made due: %d", free.Affected)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	again := put(2, "a")
	again.Insert[0].Envelopes[0].Claimed = true
	apply(t, s, again)
	if got := due(t, s, queue.DueQuery{}); got != "1.0 1.1" {
		t.Errorf("due for the next process before it has freed any: %s", got)
	}
	freeAbandoned(t, s)
	if got := due(t, s, queue.DueQuery{}); got != "1.0 1.1 1.2" {
		t.Errorf("due for the next process: %s", got)
	}
}

// count is how much there is.
func (s *Store) count(ctx context.Context) (messages, envelopes int64, err error) {
	count, err := s.Count(ctx)
	if err != nil {
		return 0, 0, err
	}
	return count()
}

// freeAbandoned ends the claims of the process before, one by one.
func freeAbandoned(t testing.TB, s *Store) {
	t.Helper()
	for after := (queue.EnvelopeID{}); ; {
		ids, err := s.Abandoned(context.Background(), after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) == 0 {
			return
		}
		apply(t, s, &queue.Change{Free: ids})
		after = ids[0]
	}
}

// The scans must stay quick with a million envelopes: they read an index, in its
// order, and begin where the last one ended.
func TestScansUseTheIndices(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	var text string
	plan := func(query string) string {
		args := make([]any, strings.Count(query, "?"))
		rows, err := s.read.Query("EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var a, b, c int
			if err := rows.Scan(&a, &b, &c, &text); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, text)
		}
		return strings.Join(lines, "\n")
	}
	for query, want := range map[string]string{
		dueQuery:                     "SEARCH e USING INDEX envelopes_due (lane=? AND (next,destination,message,n)>(?,?,?,?) AND next<?)",
		dueAtQuery:                   "SEARCH e USING INDEX envelopes_destination (destination=? AND lane=? AND (next,message,n)>(?,?,?) AND next<?)",
		depthQuery(dueDepth, 2):      "SEARCH envelopes USING COVERING INDEX envelopes_due (lane=? AND next<?)",
		depthQuery(deferredDepth, 2): "SEARCH envelopes USING COVERING INDEX envelopes_due (lane=? AND next>?)",
		depthQuery(heldDepth, 2):     "SEARCH envelopes USING COVERING INDEX envelopes_held (held>?)",
		nextQuery:                    "SEARCH envelopes USING COVERING INDEX envelopes_due (lane=? AND next>?)",
	} {
		got := plan(query)
		if !strings.Contains(got, want) || strings.Contains(got, "TEMP B-TREE") {
			t.Errorf("%s\nplan: %s", query, got)
		}
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	apply(t, s, put(1, "a"))
	apply(t, s, put(3, "a"))
	err := s.Apply(context.Background(), []*queue.Change{put(2, "a"), {Remove: []queue.EnvelopeID{{Message: 1}}}, put(3, "b")})
	if !errors.Is(err, queue.ErrConflict) {
		t.Errorf("Apply: %v", err)
	}
	if got := due(t, s, queue.DueQuery{}); got != "1.0 3.0" {
		t.Errorf("due: %s", got)
	}
	apply(t, s, put(2, "a")) // the connection is fit for more
}

func TestRemove(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	apply(t, s, put(1, "a", "b", "c"), put(2, "a"))
	id := func(m queue.MessageID, n int) queue.EnvelopeID { return queue.EnvelopeID{Message: m, N: n} }
	for _, tt := range []struct {
		ids                []queue.EnvelopeID
		affected, messages int
	}{
		{[]queue.EnvelopeID{id(1, 0)}, 1, 0},
		{[]queue.EnvelopeID{id(1, 0), id(7, 0)}, 0, 0},
		{[]queue.EnvelopeID{id(2, 0), id(1, 1), id(1, 2)}, 3, 2},
	} {
		c := &queue.Change{Remove: tt.ids}
		if apply(t, s, c); c.Affected != tt.affected || c.Messages != tt.messages {
			t.Errorf("%v: %d envelopes, %d messages", tt.ids, c.Affected, c.Messages)
		}
	}
	if m, e, err := s.count(context.Background()); m != 0 || e != 0 || err != nil {
		t.Errorf("left: %d, %d, %v", m, e, err)
	}
}

func TestNoSpaceInTheDatabase(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	limit := func(pages int) {
		if _, err := s.stmts.conn.ExecContext(context.Background(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(60)
	body := []byte(strings.Repeat("x", 8000))
	n := queue.MessageID(0)
	var err error
	for err == nil && n < 1000 {
		c := put(n+1, "a")
		m := &c.Insert[0]
		m.Body, m.Message.Size, m.Checksum = body, int64(len(body)), queue.Checksum(0, body)
		if err = s.Apply(context.Background(), []*queue.Change{c}); err == nil {
			n++
		}
	}
	if !errors.Is(err, rpc.ErrNoSpace) || n < 5 {
		t.Fatalf("after %d messages: %v", n, err)
	}
	limit(1 << 20)
	apply(t, s, put(n+1, "a"))
	if m, e, err := s.count(context.Background()); m != int64(n)+1 || e != m || err != nil {
		t.Errorf("stored: %d, %d, %v; acknowledged %d", m, e, err, n+1)
	}
	for id := range n {
		if b, err := s.Body(context.Background(), id+1); err != nil || b.Size() != int64(len(body)) {
			t.Errorf("body of %d: %v", id+1, err)
		}
	}
}

func TestOrphansAreSwept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	keep := func(id queue.MessageID) { keepFile(t, s, id, []byte("body")) }
	keep(1) // its row follows
	c := put(1, "a")
	c.Insert[0].Body, c.Insert[0].Staged = nil, true
	apply(t, s, c)
	keep(2) // its row never came
	if _, err := s.Stage(); err != nil {
		t.Fatal(err)
	}
	if st, err := s.Stage(); err != nil || !errors.Is(st.Keep(1), queue.ErrConflict) {
		t.Errorf("the body of another message was replaced: %v", err)
	}
	foreign := filepath.Join(filepath.Dir(path), "messages", "README")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(path), "messages"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != ".lock 0000000000000001 README" {
		t.Errorf("left: %s", got)
	}
	if b, err := s.Body(context.Background(), 1); err != nil || b.Size() != 4 {
		t.Errorf("Body: %v", err)
	}
	apply(t, s, &queue.Change{Remove: []queue.EnvelopeID{{Message: 1}}})
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "messages", "0000000000000001")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the body outlived its message: %v", err)
	}
	if _, err := s.Body(context.Background(), 1); !errors.Is(err, rpc.ErrNotFound) {
		t.Errorf("Body: %v", err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd ?%41#name.db")
	s := open(t, path)
	apply(t, s, put(1, "a"))
	st, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Keep(2); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	for _, name := range []string{filepath.Base(path), filepath.Base(path) + "-wal", "messages", "messages/.lock", "messages/0000000000000002"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func TestDurabilityIsInForce(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2"} {
		var got string
		if err := s.stmts.conn.QueryRowContext(context.Background(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v", pragma, got, err)
		}
	}
}

func TestDamagedColumn(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	apply(t, s, put(1, "a"))
	if _, err := s.stmts.conn.ExecContext(context.Background(), "UPDATE messages SET body = ?", []byte("bodY")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Body(context.Background(), 1); !errors.Is(err, queue.ErrCorrupt) {
		t.Errorf("Body: %v", err)
	}
}

// A database of a newer program is refused, as it is.
func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO tabard_queue_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if s, err := Open(context.Background(), path); err == nil || !strings.Contains(err.Error(), "newer") {
		s.Close()
		t.Errorf("Open: %v", err)
	}
}
