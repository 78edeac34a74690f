package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/queue"
)

// running copies what a process that is killed leaves: a database whose log holds the
// messages 1 to n.
func running(t *testing.T, n queue.MessageID) (path string) {
	t.Helper()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "queue.db"))
	for id := range n {
		apply(t, s, put(id+1, "a"))
	}
	path = filepath.Join(t.TempDir(), "queue.db")
	for from, to := range map[string]string{"queue.db": path, "queue.db-wal": path + "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	messages := filepath.Join(filepath.Dir(path), "messages")
	if err := os.Mkdir(messages, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(messages, lockName), []byte(markInUse+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Damage in the middle of the log is no end of it: what follows was acknowledged. It is
// refused and left as it is, and a repair tells of it. An end that is torn is no damage.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change  func(log []byte) []byte
		corrupt bool
	}{
		"sound":           {func(log []byte) []byte { return log }, false},
		"a page":          {func(log []byte) []byte { log[len(log)/2] ^= 1; return log }, true},
		"the end is torn": {func(log []byte) []byte { log[len(log)-10] ^= 1; return log }, false},
		"the end is cut":  {func(log []byte) []byte { return log[:len(log)-10] }, false},
		"no header":       {func(log []byte) []byte { return log[:10] }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := running(t, 20)
			log, err := os.ReadFile(path + "-wal")
			if err != nil {
				t.Fatal(err)
			}
			log = tt.change(log)
			if err := os.WriteFile(path+"-wal", log, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), path)
			if !tt.corrupt {
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, queue.ErrCorrupt) || !strings.Contains(err.Error(), "its log") {
				t.Fatalf("%v", err)
			}
			if after, err := os.ReadFile(path + "-wal"); err != nil || string(after) != string(log) {
				t.Errorf("the log has changed, %v", err)
			}
			r, err := Repair(t.Context(), path)
			if err != nil || r.Messages == 0 || r.Messages == 20 || len(r.Unread) == 0 || !strings.Contains(r.Unread[0], "what was stored last") {
				t.Errorf("%+v, %v", r, err)
			}
			s = open(t, path)
			if n, _, err := s.count(t.Context()); err != nil || n != r.Messages {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}
