package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/queue"
)

// A damaged queue can be looked at, and nothing else; what can be read of it is saved,
// and the rest is kept.
func TestInspectAndRepair(t *testing.T) {
	for name, tt := range map[string]struct {
		off   int64
		n     int
		least int64 // messages saved
	}{
		"messages":   {60 * 4096, 30 * 4096, 150},
		"one page":   {100 * 4096, 4096, 150},
		"the schema": {0, 4096, 0},
		"cut":        {100 * 4096, 0, 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := stocked(t)
			if tt.n > 0 {
				spoil(t, path, tt.off, tt.n)
			} else if err := os.Truncate(path, tt.off); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(filepath.Dir(path), "messages", lockName)); err != nil {
				t.Fatal(err)
			}
			was, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, why := Open(t.Context(), path)
			if !errors.Is(why, queue.ErrCorrupt) {
				t.Fatal(why)
			}
			if err := Condition(path); !errors.Is(err, queue.ErrCorrupt) || !strings.Contains(err.Error(), path) {
				t.Errorf("Condition: %v", err)
			}
			seen := inspected(t, path, why)
			r, err := Repair(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("seen %d, saved %d messages, %d envelopes, %d lost, moved %d, unread %q", seen, r.Messages, r.Envelopes, len(r.Lost), len(r.Moved), r.Unread)
			if r.Sound || r.Messages < tt.least || r.Messages > 201 || r.Envelopes < r.Messages || len(r.Unread) == 0 {
				t.Errorf("report: %+v", r)
			}
			if kept, err := os.ReadFile(r.Damaged); err != nil || string(kept) != string(was) {
				t.Errorf("the damaged file is not kept as it was: %v", err)
			}
			checkRepaired(t, path, r)
		})
	}
}

// inspected counts the envelopes that can be seen.
func inspected(t *testing.T, path string, why error) (n int) {
	t.Helper()
	s, err := Inspect(t.Context(), path, why)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for after := (queue.EnvelopeID{}); ; {
		rows, err := s.Find(t.Context(), queue.Query{After: after, Limit: 50})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		n += len(rows)
		after = rows[len(rows)-1].ID
	}
	tally, err := s.Tally(t.Context(), queue.Query{Limit: 1}, []queue.Field{queue.FieldDestination, queue.FieldSender})
	if err != nil || tally.Envelopes != int64(n) || n > 0 && (len(tally.Groups) != 1 || tally.All != 2) {
		t.Errorf("%d seen, counted %+v, %v", n, tally, err)
	}
	if err := s.Apply(t.Context(), []*queue.Change{put(999, "d")}); !errors.Is(err, queue.ErrReadOnly) {
		t.Errorf("Apply: %v", err)
	}
	if _, err := s.Stage(); !errors.Is(err, queue.ErrReadOnly) {
		t.Errorf("Stage: %v", err)
	}
	if rows, err := s.Due(t.Context(), queue.DueQuery{Now: epoch.Add(1 << 40), Limit: 10}); len(rows) != 0 || err != nil {
		t.Errorf("due: %v, %v", rows, err)
	}
	return n
}

func checkRepaired(t *testing.T, path string, r Report) {
	t.Helper()
	if err := Condition(path); err != nil {
		t.Errorf("repaired: %v", err)
	}
	s := open(t, path)
	m, e, err := s.count(t.Context())
	if err != nil || m != r.Messages || e != r.Envelopes {
		t.Errorf("repaired: %d messages, %d envelopes, %v", m, e, err)
	}
	rows, err := s.Find(t.Context(), queue.Query{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		b, err := s.Body(t.Context(), row.ID.Message)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	for _, id := range r.Moved {
		if _, err := os.Stat(filepath.Join(r.Bodies, id.String())); err != nil {
			t.Error(err)
		}
	}
	apply(t, s, put(500, "d"))
}

// A sound queue is left alone, one that is open is refused, and in the place of a
// missing one a new one is made only by this, with the bodies kept.
func TestRepairWithoutDamage(t *testing.T) {
	path := stocked(t)
	s := open(t, path)
	if _, err := Repair(t.Context(), path); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := Repair(t.Context(), path); err != nil || !r.Sound {
		t.Errorf("sound: %+v, %v", r, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r, err := Repair(t.Context(), path)
	if err != nil || r.Messages != 0 || len(r.Moved) != 1 || r.Damaged != "" {
		t.Errorf("missing: %+v, %v", r, err)
	}
	checkRepaired(t, path, r)
}
