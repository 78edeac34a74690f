package sqlite

import (
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is asked of our own schema is found by an index; only whole lists are
// read from end to end.
func TestOwnQueriesUseIndexes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	db, tab := newDB(t, path), open(t, path).(*Table)
	defer tab.Close()
	for _, q := range tab.Queries().All() {
		rows, err := db.Query("EXPLAIN QUERY PLAN "+q.SQL, q.Args("x")...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(step, "SCAN ") && len(q.Parts) > 0 || strings.HasPrefix(q.Name, "walk_") && !strings.Contains(step, "_wildcard") {
				t.Errorf("%s: %s", q.Name, step)
			}
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		rows.Close()
	}
}
