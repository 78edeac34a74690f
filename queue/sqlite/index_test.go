package sqlite

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"tabard/queue"
)

// The end of a hold does not read a million envelopes that it did not keep back.
func TestReleaseReadsTheIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "queue.db"))
	noScan(t, s, freeText, 0, 0, 2)
	noScan(t, s, keepsText, 2)
}

// noScan looks whether a statement reads a whole table.
func noScan(t *testing.T, s *Store, text string, args ...any) {
	t.Helper()
	rows, err := s.read.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(detail, "SCAN") && detail != "SCAN CONSTANT ROW" {
			t.Errorf("plan: %s", detail)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// An index that does not have what its table has stops a store whenever such a row is
// removed. At the next start that is found, lest what was delivered stay in the queue
// and be delivered again at every start; and a repair makes the index anew.
func TestIndexWithoutItsRows(t *testing.T) {
	t.Parallel()
	path := stocked(t)
	s := open(t, path)
	for _, text := range []string{
		"PRAGMA writable_schema = ON",
		"UPDATE sqlite_schema SET sql = replace(sql, 'held = 0', 'held = 7') WHERE name = 'envelopes_due'",
		"PRAGMA writable_schema = RESET",
		"REINDEX envelopes_due",
		"PRAGMA writable_schema = ON",
		"UPDATE sqlite_schema SET sql = replace(sql, 'held = 7', 'held = 0') WHERE name = 'envelopes_due'",
		"PRAGMA writable_schema = RESET",
	} {
		if _, err := s.stmts.conn.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	if err := s.Apply(t.Context(), []*queue.Change{{Remove: []queue.EnvelopeID{{Message: 1}}}}); !errors.Is(err, queue.ErrBroken) {
		t.Fatalf("remove: %v", err)
	}
	if err := s.Close(); !errors.Is(err, queue.ErrCorrupt) {
		t.Fatalf("close: %v", err)
	}
	if again, err := Open(t.Context(), path); !errors.Is(err, queue.ErrCorrupt) {
		t.Fatalf("open: %v, %v", again, err)
	}
	r, err := Repair(t.Context(), path)
	if err != nil || r.Sound || r.Messages != 201 || r.Envelopes != 401 {
		t.Fatalf("repair: %+v, %v", r, err)
	}
	apply(t, open(t, path), &queue.Change{Remove: []queue.EnvelopeID{{Message: 1}}})
}
