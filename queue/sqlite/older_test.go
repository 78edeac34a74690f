package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/queue"
)

// A queue of every version before is opened as it is: what was due, claimed or held
// then still is, also when a process was killed between two steps of a migration.
func TestOlderSchemas(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../migrations/sqlite/queue/*.sql")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for version := 1; version < len(files); version++ {
		path := filepath.Join(t.TempDir(), "queue.db")
		writeOlder(t, path, files[:version])
		s := open(t, path)
		freeAbandoned(t, s)
		if got := due(t, s, queue.DueQuery{}); got != "7.0 7.1" {
			t.Errorf("version %d: due: %s", version, got)
		}
		rows, err := s.Envelopes(context.Background(), 7)
		if err != nil || len(rows) != 3 || rows[2].Hold != 1 || rows[0].Notice != "n" || rows[0].Message.RequireTLS || rows[0].Message.TLSOptional {
			t.Errorf("version %d: %+v, %v", version, rows, err)
		}
		if d, err := s.Depth(context.Background(), epoch.Add(time.Hour), nil); err != nil || d.Due[0] != 2 || d.Held[0] != 1 {
			t.Errorf("version %d: depth %+v, %v", version, d, err)
		}
		h := queue.Hold{ID: 2, Kind: queue.HoldRule, Value: "out", Created: epoch}
		apply(t, s, &queue.Change{Hold: []queue.Hold{h}, Update: []queue.Update{{ID: queue.EnvelopeID{Message: 7, N: 0}, Next: epoch, Hold: 2}}})
	}
}

// writeOlder writes a queue as a program would that had these steps only: with an
// envelope that is due, one that is claimed, and one that is held for its body.
func writeOlder(t *testing.T, path string, steps []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := db.Exec(text, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE tabard_queue_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')));
		CREATE UNIQUE INDEX tabard_queue_version_once ON tabard_queue_version (version_id);
		INSERT INTO tabard_queue_version (version_id, is_applied) VALUES (0, 1)`)
	for _, file := range steps { // a number may be missing
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		exec(string(text))
		exec("INSERT INTO tabard_queue_version (version_id, is_applied) VALUES (?, 1)", strings.TrimLeft(filepath.Base(file)[:4], "0"))
	}
	exec(`INSERT INTO messages (id, sender, size, eightbit, utf8, ret, envid, session, login, helo, remote, created, checksum, body)
		VALUES (7, 'a@x.example', 4, 0, 0, '', '', '', '', '', '', 1, ?, ?)`, int64(queue.Checksum(0, []byte("body"))), []byte("body"))
	for n, more := range []string{"NULL, 0", "1, 0", "NULL, 1"} {
		exec(fmt.Sprintf(`INSERT INTO envelopes (message, n, address, recipient, orcpt, notify, action, relay, user, destination, created, expires, next, attempts, warned, last_error, notice, lease, held)
			VALUES (7, %d, 'b@y.example', 'b@y.example', '', '', 'out', 1, '', 'out/y.example', 1, 1, 1, 0, 0, '', 'n', %s)`, n, more))
	}
}
