package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"tabard/internal/bodycode"
	"tabard/internal/rpc"
	"tabard/queue"
)

const (
	lockName   = ".lock"
	tempPrefix = "tmp-"
	fileMode   = 0o600
)

// bodyFiles is the directory of bodies that are too large for a column.
type bodyFiles struct {
	dir    string
	lock   *os.File
	disk   disk
	health *health
}

// openBodyFiles makes the directory and locks it against other processes.
func openBodyFiles(dir string, d disk, h *health) (*bodyFiles, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("in use by another process")
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return &bodyFiles{dir: dir, lock: lock, disk: d, health: h}, nil
}

func (b *bodyFiles) path(name string) string { return filepath.Join(b.dir, name) }

// sweep removes what a process left that ended between file and row.
func (b *bodyFiles) sweep(known func(queue.MessageID) (string, error)) error {
	return b.each(func(name string) error { return b.sweepOne(name, known) })
}

// each calls f with every name in the directory, until it fails.
func (b *bodyFiles) each(f func(name string) error) error {
	dir, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1000)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
	}
}

// known names the file that the row of a message has, if there is one.
func (b *bodyFiles) sweepOne(name string, known func(queue.MessageID) (string, error)) error {
	if !strings.HasPrefix(name, tempPrefix) {
		id, _, err := queue.ParseID(name)
		if err != nil {
			return nil // not ours
		}
		if file, err := known(id); file == name || err != nil {
			return err
		}
	}
	return b.disk.Remove(b.path(name))
}

// remove takes bodies away whose rows are gone. One that stays behind is an
// orphan, which the next start removes.
func (b *bodyFiles) remove(names []string) {
	for _, name := range names {
		_ = b.disk.Remove(b.path(name))
	}
}

// stage is a body being written.
type stage struct {
	files *bodyFiles
	f     diskFile
	name  string
	code  *bodycode.Writer // nil: what is written is stored as it is
}

// Stage implements queue.Store.
func (s *Store) Stage() (queue.Stage, error) {
	if err := s.Writable(); err != nil {
		return nil, err
	}
	if err := s.files.leaves(0); err != nil {
		return nil, err
	}
	f, err := s.files.disk.CreateTemp(s.files.dir, tempPrefix)
	if err != nil {
		return nil, wrap(err)
	}
	st := &stage{files: s.files, f: f, name: filepath.Base(f.Name())}
	if c := s.coder.Load(); !c.Plain() {
		if st.code, err = c.NewWriter(f); err != nil {
			st.Discard()
			return nil, wrap(err)
		}
	}
	return st, nil
}

// Encoding implements queue.Stage.
func (s *stage) Encoding() bodycode.Encoding {
	if s.code == nil {
		return ""
	}
	return s.code.Encoding()
}

func (s *stage) Write(p []byte) (int, error) {
	if err := s.files.leaves(int64(len(p))); err != nil {
		return 0, err
	}
	to := io.Writer(s.f)
	if s.code != nil {
		to = s.code
	}
	n, err := to.Write(p)
	if err != nil {
		return n, wrap(err)
	}
	return n, nil
}

// finish ends the file, the body of a message, and syncs it.
func (s *stage) finish(id queue.MessageID) error {
	if s.code != nil {
		if err := s.code.Close(int64(id)); err != nil {
			return wrap(err)
		}
	}
	if err := s.f.Sync(); err != nil {
		if err = wrap(err); errors.Is(err, rpc.ErrNoSpace) {
			// The file system found out late that it is full. Nothing relies on
			// this file yet, and it goes.
			return err
		}
		return s.files.health.judge(synced(err))
	}
	return wrap(s.f.Close())
}

// Keep syncs file, name and directory, in this order.
func (s *stage) Keep(id queue.MessageID) error {
	b := s.files
	if err := b.health.check(); err != nil {
		return err
	}
	if err := s.finish(id); err != nil {
		return err
	}
	// Linked, not renamed: a name that is taken belongs to another message.
	if err := b.disk.Link(b.path(s.name), b.path(id.String())); err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("body of %s: %w", id, queue.ErrConflict)
		}
		return wrap(err)
	}
	_ = b.disk.Remove(b.path(s.name))
	s.name = id.String()
	return b.health.judge(synced(b.disk.SyncDir(b.dir)))
}

func (s *stage) Discard() {
	if s.code != nil {
		s.code.Discard()
	}
	s.f.Close()
	s.files.remove([]string{s.name})
}
