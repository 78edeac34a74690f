package sqlite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tabard/queue"
)

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// inode is a file as the disk has it, and what the disk has not been told to keep.
type inode struct {
	data    []byte
	pending []step
}

// platter is what a disk has and what it may lose. Names are as good as data: one is
// there for certain when its directory was synced, its file's sync does not help.
type platter struct {
	files   []*inode
	now     map[string]int // names as the system sees them
	durable map[string]int
	pending []naming
	mark    string // of the lock, which no machine writes
}

// naming gives a name to a file, or takes it: -1.
type naming struct {
	path string
	file int
}

// loss decides whether something that was not synced is kept.
type loss func() bool

func newPlatter() *platter {
	return &platter{mark: markInUse, now: make(map[string]int), durable: make(map[string]int)}
}

// load takes the files in a directory as kept.
func (p *platter) load(t testing.TB, dir string) {
	t.Helper()
	for _, pattern := range []string{"*", "messages/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil || filepath.Base(path) == lockName {
				continue // a directory, or written by no machine
			}
			p.files = append(p.files, &inode{data: b})
			p.now[path], p.durable[path] = len(p.files)-1, len(p.files)-1
		}
	}
}

// do is one more step.
func (p *platter) do(s step) error {
	n, known := p.now[s.path]
	switch s.kind {
	case didCreate:
		p.files = append(p.files, &inode{})
		p.name(s.path, len(p.files)-1)
		return nil
	case didLink:
		old, ok := p.now[s.from]
		if !ok {
			return fmt.Errorf("%s is not there", s.from)
		}
		p.name(s.path, old)
		return nil
	case didSyncDir:
		p.pending = slices.DeleteFunc(p.pending, func(c naming) bool {
			if filepath.Dir(c.path) == s.path {
				c.apply(p.durable)
				return true
			}
			return false
		})
		return nil
	}
	if !known {
		return fmt.Errorf("%s is not there", s.path)
	}
	f := p.files[n]
	switch s.kind {
	case didRemove:
		p.name(s.path, -1)
	case didSync:
		for _, w := range f.pending {
			f.apply(w, func() bool { return true })
		}
		f.pending = nil
	default:
		f.pending = append(f.pending, s)
	}
	return nil
}

func (p *platter) name(path string, file int) {
	c := naming{path, file}
	c.apply(p.now)
	p.pending = append(p.pending, c)
}

func (c naming) apply(names map[string]int) {
	if c.file < 0 {
		delete(names, c.path)
	} else {
		names[c.path] = c.file
	}
}

// apply carries out a write or truncation, as far as it is kept.
func (f *inode) apply(s step, keep loss) {
	if s.kind == didTruncate {
		if keep() {
			f.resize(s.off)
		}
		return
	}
	for at := int64(0); at < int64(len(s.data)); {
		end := min(int64(len(s.data)), (s.off+at)/sector*sector+sector-s.off)
		if keep() {
			f.resize(max(int64(len(f.data)), s.off+end))
			copy(f.data[s.off+at:], s.data[at:end])
		}
		at = end
	}
}

func (f *inode) resize(n int64) {
	if n <= int64(len(f.data)) {
		f.data = f.data[:n:n]
		return
	}
	f.data = append(f.data, make([]byte, n-int64(len(f.data)))...)
}

// lose is what a loss of power leaves, as files in a directory instead of from. The
// platter stays as it is.
func (p *platter) lose(keep loss, from, to string) error {
	names := maps.Clone(p.durable)
	for _, c := range p.pending {
		if keep() {
			c.apply(names)
		}
	}
	if err := os.MkdirAll(filepath.Join(to, "messages"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, "messages", lockName), []byte(p.mark+"\n"), 0o600); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		f := &inode{data: slices.Clone(p.files[names[path]].data)}
		for _, w := range p.files[names[path]].pending {
			f.apply(w, keep)
		}
		if err := os.WriteFile(filepath.Join(to, strings.TrimPrefix(path, from)), f.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// promise is what was said after so many steps.
type promise struct {
	after int
	what  string
	id    queue.MessageID
}

// recorded lives through the story on a machine, on a closed store at path, and returns
// what was done and promised.
func recorded(t testing.TB, m *machine, f form, path string) []promise {
	t.Helper()
	var said []promise
	u := m.under(t)
	u.foldPages = 12
	m.recording = true
	tell(t, m, f, u, path, func() {}, func(what string, id queue.MessageID) { said = append(said, promise{m.position(), what, id}) })
	return said
}

// promisesKept opens what is left after so many steps.
func promisesKept(dir string, f form, said []promise, after int) error {
	store, err := Open(context.Background(), filepath.Join(dir, "queue.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	f.opens(store)
	rows, err := store.Find(context.Background(), queue.Query{Limit: 100})
	if err != nil {
		return err
	}
	there, taken := map[queue.MessageID]bool{}, map[queue.MessageID]bool{}
	for _, r := range rows {
		there[r.ID.Message] = true
		if err := sameBody(store, r.ID.Message); err != nil {
			return err
		}
	}
	for _, p := range said {
		if p.after > after {
			break
		}
		taken[p.id] = taken[p.id] || p.what == "taken"
	}
	var errs []error
	for _, p := range said {
		switch {
		case p.after > after:
		case p.what == "accepted" && !there[p.id] && !taken[p.id]:
			errs = append(errs, fmt.Errorf("%s was accepted, and is lost", p.id))
		case p.what == "gone" && there[p.id]:
			errs = append(errs, fmt.Errorf("%s was recorded as delivered, and is there", p.id))
		}
	}
	return errors.Join(errs...)
}

// The power goes after each step that the store takes, and the disk has lost all that
// it was not told to keep, or none of that, or any part, in sectors: what was promised
// is there, and nothing is damaged. With nothing lost it is a process that was killed
// at that point: between the link of a body and its row, between the commit and the
// 250, between a delivery and its record. (queue.TestKill kills a real one, at random.)
//
// (A device-mapper target that drops or logs writes, dm-flakey or dm-log-writes, would
// show the same of the kernel's file system, which is not ours to test, and no more of
// ours; it needs a kernel that has it, and root.)
func TestPowerLoss(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, path string){
		"new spool": func(t *testing.T, path string) {
			if err := errors.Join(os.Mkdir(filepath.Join(filepath.Dir(path), "messages"), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
		"used spool": func(t *testing.T, path string) {
			if err := open(t, path).Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, f := range forms(t) {
			t.Run(name+", "+f.name, func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "queue.db")
				prepare(t, path)
				p := newPlatter()
				p.load(t, filepath.Dir(path))
				if name == "new spool" {
					p.mark = markNew
				}
				m := &machine{}
				said := recorded(t, m, f, path)
				t.Logf("%d steps, %d promises", len(m.steps), len(said))
				tries := 4
				if long() {
					tries = 4 * len(m.steps)
				}
				losePower(t, p, m.steps, filepath.Dir(path), f, said, tries)
			})
		}
	}
}

// losePower replays steps, and loses the power after so many of them.
func losePower(t *testing.T, p *platter, steps []step, from string, f form, said []promise, tries int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	losses := []loss{
		func() bool { return false },
		func() bool { return true },
		func() bool { return r.IntN(2) == 0 },
		func() bool { return r.IntN(8) > 0 },
	}
	promised := make(map[int]bool)
	for _, p := range said {
		promised[p.after] = true
	}
	where := t.TempDir()
	points := len(steps) * len(losses)
	fresh := p.mark == markNew
	for i, s := range steps {
		if fresh && i+1 >= said[0].after { // the first message: the database is there for long
			p.mark = markInUse
		}
		if err := p.do(s); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		for j, keep := range losses {
			// As many as there is time for, evenly; and after each promise all is
			// lost that may be.
			n := i*len(losses) + j
			if n*tries/points == (n+1)*tries/points && !(j == 0 && promised[i+1]) {
				continue
			}
			dir := filepath.Join(where, fmt.Sprintf("%d.%d", i, j))
			if err := p.lose(keep, from, dir); err != nil {
				t.Fatal(err)
			}
			if err := promisesKept(dir, f, said, i+1); err != nil {
				t.Errorf("after step %d of %d, loss %d: %v", i+1, len(steps), j, err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
}
