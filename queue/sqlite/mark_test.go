package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/queue"
)

// stocked is a closed queue of 200 messages of 3 KB, and one with its body in a
// file.
func stocked(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "queue.db")
	s := open(t, path)
	var all []*queue.Change
	for id := range queue.MessageID(200) {
		c := put(id+1, "d", "e")
		m := &c.Insert[0]
		m.Body = []byte(strings.Repeat(m.Message.ID.String()+"\r\n", 170))
		m.Message.Size, m.Checksum = int64(len(m.Body)), queue.Checksum(0, m.Body)
		all = append(all, c)
	}
	apply(t, s, all...)
	keepFile(t, s, 201, []byte("body"))
	c := put(201, "d")
	c.Insert[0].Body, c.Insert[0].Staged = nil, true
	apply(t, s, c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func keepFile(t testing.TB, s *Store, id queue.MessageID, body []byte) {
	t.Helper()
	st, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := st.Keep(id); err != nil {
		t.Fatal(err)
	}
}

// spoil overwrites part of a file.
func spoil(t testing.TB, path string, off int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("\xff", n)), off); err != nil {
		t.Fatal(err)
	}
}

func markOf(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(path), "messages", lockName))
	if err != nil {
		t.Fatal(err)
	}
	word, _, _ := strings.Cut(string(b), "\n")
	return word
}

// dropBodies leaves a queue all of whose messages are small.
func dropBodies(path string) error {
	bodies, err := filepath.Glob(filepath.Join(filepath.Dir(path), "messages", "[0-9a-f]*"))
	for _, name := range bodies {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// One that ended before its database was made is no reason to refuse the next start.
func TestFirstStartIsCutOff(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{-1, 0} {
		path := filepath.Join(t.TempDir(), "queue.db")
		files, err := openBodyFiles(filepath.Join(filepath.Dir(path), "messages"), system{}, newHealth())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := files.begin(); err != nil {
			t.Fatal(err)
		}
		if err := files.lock.Close(); err != nil {
			t.Fatal(err)
		}
		if size == 0 {
			if err := private(path); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, path)
		if got := markOf(t, path); got != markInUse {
			t.Errorf("marked %q", got)
		}
		apply(t, s, put(1, "a"))
	}
}

// A queue is never begun anew where there was one.
func TestMissingDatabaseIsRefused(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"missing":                 os.Remove,
		"empty":                   func(path string) error { return os.Truncate(path, 0) },
		"missing, without bodies": func(path string) error { return errors.Join(os.Remove(path), dropBodies(path)) },
		"empty, without bodies":   func(path string) error { return errors.Join(os.Truncate(path, 0), dropBodies(path)) },
		"its log is left": func(path string) error {
			return errors.Join(os.Remove(path), os.RemoveAll(filepath.Join(filepath.Dir(path), "messages")), os.WriteFile(path+"-wal", []byte("x"), 0o600))
		},
	} {
		path := stocked(t)
		if err := lose(path); err != nil {
			t.Fatal(err)
		}
		if err := Condition(path); name != "its log is left" && !errors.Is(err, queue.ErrCorrupt) {
			t.Errorf("%s: Condition: %v", name, err)
		}
		s, err := Open(t.Context(), path)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, queue.ErrCorrupt) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			t.Errorf("%s: a database was made", name)
		}
		if got := markOf(t, path); got != markDamaged {
			t.Errorf("%s: marked %q", name, got)
		}
	}
}

// Damage is found when the store was not closed, or was seen by the process before;
// a clean end costs no check.
func TestCheckAtStart(t *testing.T) {
	path := stocked(t)
	if got := markOf(t, path); got != markClean {
		t.Errorf("closed, and marked %q", got)
	}
	spoil(t, path, 20*4096, 10*4096)
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if got := markOf(t, path); got != markInUse {
		t.Errorf("open, and marked %q", got)
	}
	for id := range queue.MessageID(200) {
		if b, err := s.Body(context.Background(), id+1); err == nil {
			b.Close()
		}
	}
	if err := s.Writable(); !errors.Is(err, queue.ErrBroken) || !errors.Is(err, queue.ErrCorrupt) {
		t.Errorf("damage was read, and the store is %v", err)
	}
	if _, err := s.Find(t.Context(), queue.Query{Limit: 1}); !errors.Is(err, queue.ErrBroken) {
		t.Errorf("Find: %v", err)
	}
	if err := s.Apply(t.Context(), []*queue.Change{put(300, "d")}); !errors.Is(err, queue.ErrBroken) {
		t.Errorf("Apply: %v", err)
	}
	if err := s.Close(); err == nil {
		t.Error("Close tells of nothing")
	}
	if got := markOf(t, path); got != markDamaged {
		t.Errorf("damaged, and marked %q", got)
	}
	if s, err := Open(t.Context(), path); !errors.Is(err, queue.ErrCorrupt) {
		s.Close()
		t.Errorf("Open: %v", err)
	}
}

// What a failed process left is checked.
func TestCheckAfterAnUncleanEnd(t *testing.T) {
	path := stocked(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "messages", lockName), []byte(markInUse+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spoil(t, path, 20*4096, 10*4096)
	if s, err := Open(t.Context(), path); !errors.Is(err, queue.ErrCorrupt) {
		s.Close()
		t.Errorf("Open: %v", err)
	}
}
