package deliver

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tabard/queue"
)

// Files in tmp that nobody touched for so long belong to deliveries that died
// (the maildir convention's 36 hours).
const (
	sweepAge   = 36 * time.Hour
	sweepEvery = 24 * time.Hour
	sweepMax   = 10_000 // files looked at in one sweep
	sweepDirs  = 4096   // maildirs remembered
)

// sweeps remembers when each maildir was swept last.
type sweeps struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newSweeps() *sweeps { return &sweeps{last: make(map[string]time.Time)} }

// due says whether dir is to be swept now, and notes that it is.
func (s *sweeps) due(dir string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.last[dir]; ok && now.Sub(last) < sweepEvery {
		return false
	}
	if len(s.last) >= sweepDirs {
		clear(s.last)
	}
	s.last[dir] = now
	return true
}

// sweepAfter cleans the tmp of a maildir that was just delivered to.
func (a *agent) sweepAfter(p *parcel, st status) {
	if st.outcome != queue.Delivered || p.how.Method != "maildir" {
		return
	}
	dir, err := a.folder(p)
	now := time.Now()
	if err != nil || !a.swept.due(dir, now) {
		return
	}
	n, err := sweepTmp(filepath.Join(dir, "tmp"), now.Add(-sweepAge))
	if n > 0 || err != nil {
		a.log.Warn("mda swept tmp", "maildir", dir, "removed", n, "error", err)
	}
}

// sweepTmp removes files not changed since before, and returns how many.
func sweepTmp(tmp string, before time.Time) (removed int, err error) {
	d, err := os.Open(tmp)
	if err != nil {
		return 0, err
	}
	defer func() { _ = d.Close() }()
	for range sweepMax / 100 {
		entries, err := d.ReadDir(100)
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
				continue
			}
			switch err := os.Remove(filepath.Join(tmp, e.Name())); {
			case err == nil:
				removed++
			case !errors.Is(err, fs.ErrNotExist):
				return removed, err
			}
		}
		if errors.Is(err, io.EOF) {
			return removed, nil
		}
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}
