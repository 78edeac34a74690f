package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tabard/queue"
)

// What is counted row by row has the values that SQL gives.
func TestTallyOfRows(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	for id := range queue.MessageID(4) {
		c := put(id+1, "d", "e", "f")
		c.Insert[0].Message.Sender = []string{"", "a@x.EXAMPLE", "b@x.example", "no-domain"}[id]
		for n := range c.Insert[0].Envelopes {
			e := &c.Insert[0].Envelopes[n]
			e.Address, e.Recipient, e.Action, e.LastError = "u@Y.example", "v@z.example", "out", "450 later"
			e.Attempts, e.Hold = int(id), int64(n%2)
			e.Created = epoch.Add(time.Duration(id) * time.Minute)
		}
		apply(t, s, c)
	}
	q := queue.Query{Now: epoch.Add(time.Second), Limit: 3, Active: []queue.EnvelopeID{{Message: 2, N: 0}}}
	rows, err := s.Find(t.Context(), queue.Query{Limit: 100})
	if err != nil || len(rows) != 12 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, f := range queue.Fields() {
		by := []queue.Field{f, queue.FieldDestination}
		want, err := s.Tally(t.Context(), q, by)
		if err != nil {
			t.Fatal(err)
		}
		groups := make(map[string]*queue.Group)
		for i := range rows {
			addRow(groups, &rows[i], &q, by)
		}
		got := tallied(groups, q.Limit)
		got.Partial = false
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("by %s: %s", f, d)
		}
	}
}
