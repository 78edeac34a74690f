package sqlite

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Rows that have no place in a queue are named with the reason; what is read twice is
// saved once, and told of by nobody.
func TestSalvageNamesWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	apply(t, s, put(1, "a"), put(2, "a", "b"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	old, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	old.SetMaxOpenConns(1)
	for _, text := range []string{
		"PRAGMA legacy_alter_table = ON",               // the views are of no matter here
		"CREATE TABLE copy AS SELECT * FROM envelopes", // without constraints
		"DROP TABLE envelopes",
		"ALTER TABLE copy RENAME TO envelopes",
		"INSERT INTO envelopes SELECT * FROM envelopes WHERE message = 1", // the same again
		"INSERT INTO envelopes SELECT * FROM envelopes WHERE message = 2 AND n = 1",
		"UPDATE envelopes SET address = 'other@b.example' WHERE rowid = (SELECT max(rowid) FROM envelopes)",
		"INSERT INTO envelopes (message, n, address) VALUES (3, 0, 'no-more@b.example')",
		"INSERT INTO envelopes SELECT * FROM envelopes WHERE message = 1",
		"UPDATE envelopes SET message = 4, attempts = 'many' WHERE rowid = (SELECT max(rowid) FROM envelopes)",
		"INSERT INTO envelopes (message, n, address) VALUES (2.5, 7, 'half@b.example')",
	} {
		if _, err := old.Exec(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	r := &repair{path: path, made: made(path)}
	if err := r.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.end() }()
	if err := r.copy(t.Context(), copied{"envelopes", "message"}); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(r.Lost, "\n")
	for _, want := range []string{
		"0000000000000002 1 other@b.example cannot be ours: another row has its place",
		"0000000000000003 0 no-more@b.example cannot be ours: ",
		"0000000000000004 0 a@b.example cannot be ours: ",
		"row 7 half@b.example cannot be ours: ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if err := r.count(t.Context()); len(r.Lost) != 4 || r.Envelopes != 3 || err != nil {
		t.Errorf("saved %d, %v; left out:\n%s", r.Envelopes, err, got)
	}
}

// What a report has no lines for is counted.
func TestReportIsBounded(t *testing.T) {
	t.Parallel()
	var r Report
	for i := range maxLost + 7 {
		r.lost(fmt.Sprint(i))
	}
	if len(r.Lost) != maxLost || r.LostMore != 7 {
		t.Errorf("%d lines, %d more", len(r.Lost), r.LostMore)
	}
}
