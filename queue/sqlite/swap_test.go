package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tabard/queue"
)

// A repair that ends with the power while the databases change places is finished by
// the next start: nothing that only the old one's log had is lost.
func TestRepairEndsInTheMiddle(t *testing.T) {
	for name, done := range map[string]func(path string) error{
		"marked":  func(string) error { return nil },
		"no log":  func(path string) error { return os.Remove(path + "-wal") },
		"renamed": func(path string) error { return errors.Join(os.Remove(path+"-wal"), os.Rename(made(path), path)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := withLog(t)
			files, err := openBodyFiles(filepath.Join(filepath.Dir(path), "messages"), system{}, newHealth())
			if err != nil {
				t.Fatal(err)
			}
			r := &repair{path: path, made: made(path), files: files}
			if err := errors.Join(r.begin(t.Context()), r.save(t.Context()), r.end(), r.keep(time.Now()), done(path)); err != nil {
				t.Fatal(err)
			}
			files.lock.Close()
			for _, kept := range []string{r.Damaged, r.Damaged + "-wal"} {
				if info, err := os.Stat(kept); err != nil || info.Size() == 0 {
					t.Errorf("kept: %v, %v", info, err)
				}
			}
			s := open(t, path)
			if m, e, err := s.count(t.Context()); m != 202 || e != 402 || err != nil {
				t.Errorf("%d messages, %d envelopes, %v", m, e, err)
			}
			if _, err := os.Stat(made(path)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left: %v", err)
			}
			apply(t, s, &queue.Change{Remove: []queue.EnvelopeID{{Message: 202}}})
		})
	}
}

// withLog is a stocked queue as a process leaves it that was killed: message 202 is in
// the log alone.
func withLog(t *testing.T) (path string) {
	t.Helper()
	from := stocked(t)
	s := open(t, from)
	apply(t, s, put(202, "d"))
	path = filepath.Join(t.TempDir(), "queue.db")
	if err := os.CopyFS(filepath.Dir(path), os.DirFS(filepath.Dir(from))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return path
}
