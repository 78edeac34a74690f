package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"tabard/queue"
)

// Mail on its way into memory, its transaction just ended, is not read from the store
// because it was made due by hand meanwhile: it would be there, and delivered, twice.
func TestDueKeepsTheClaim(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	c := put(7, "d")
	c.Insert[0].Envelopes[0].Claimed = true
	apply(t, s, c)
	now := time.Now()
	apply(t, s, &queue.Change{Due: []queue.EnvelopeID{{Message: 7}}, DueAt: now})
	for l := range queue.LaneLast + 1 {
		rows, err := s.Due(t.Context(), queue.DueQuery{Lane: l, Now: now.Add(time.Hour), Limit: 10})
		if err != nil || len(rows) != 0 {
			t.Errorf("lane %d: %d rows, %v", l, len(rows), err)
		}
	}
}
