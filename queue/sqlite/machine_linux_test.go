package sqlite

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// The classes of what can fail.
type class int

const (
	none   class = iota
	reads        // of a file
	writes       // to a file, and of a new name
	syncs        // of a file or directory
)

// What a machine answers instead of doing a thing.
var (
	errShort = errors.New("short write")
	errFull  = error(syscall.ENOSPC)
	errIO    = error(syscall.EIO)
)

// machine is a computer whose disk fails on command, and that keeps a log of what
// was done to it, for what a loss of power would leave (powerloss_test.go).
type machine struct {
	mu     sync.Mutex
	class  class // what fails
	fault  error
	at     int  // the how manieth of its class, from 1; 0: none
	lasts  bool // and all after it, until heal
	counts map[class]int

	free *atomic.Int64 // bytes; nil: unknown

	recording bool
	steps     []step
}

// step is one thing that was done.
type step struct {
	kind stepKind
	path string
	from string // link: the other name
	off  int64  // write: where; truncate: the size
	data []byte
}

type stepKind int

const (
	didCreate stepKind = iota
	didWrite
	didTruncate
	didSync
	didLink
	didRemove
	didSyncDir
)

// ask returns what goes wrong with the next thing of a class; nil: nothing.
func (m *machine) ask(c class) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counts == nil {
		m.counts = make(map[class]int)
	}
	m.counts[c]++
	if c != m.class || m.at == 0 || m.counts[c] < m.at || m.counts[c] > m.at && !m.lasts {
		return nil
	}
	return m.fault
}

// arm arms the machine, from now on.
func (m *machine) arm(c class, fault error, nth int, lasts bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.class, m.fault, m.at, m.lasts = c, fault, nth, lasts
	m.counts = make(map[class]int)
}

func (m *machine) heal() { m.arm(none, nil, 0, false) }

// count is how many things of a class were done since the machine was armed.
func (m *machine) count(c class) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts[c]
}

func (m *machine) record(s step) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.recording {
		s.data = slices.Clone(s.data)
		m.steps = append(m.steps, s)
	}
}

// position is how much has been recorded.
func (m *machine) position() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.steps)
}

// under is what a store stands on that runs on this machine.
func (m *machine) under(t testing.TB) under {
	t.Helper()
	return under{disk: machineDisk{m}, vfs: newVFS(t, m).name}
}

func dirOf(path string) string { return filepath.Dir(path) }

// machineDisk is the bodies' disk of a machine.
type machineDisk struct{ m *machine }

func (d machineDisk) Space(*os.File) (free, total int64, err error) {
	if d.m.free == nil {
		return 0, 0, errors.ErrUnsupported
	}
	return d.m.free.Load(), 1 << 40, nil
}

func (d machineDisk) CreateTemp(dir, prefix string) (diskFile, error) {
	if err := d.m.ask(writes); err != nil && err != errShort {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f, err := system{}.CreateTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	d.m.record(step{kind: didCreate, path: f.Name()})
	return &machineFile{f, d.m}, nil
}

func (d machineDisk) Open(path string) (diskFile, error) {
	f, err := system{}.Open(path)
	if err != nil {
		return nil, err
	}
	return &machineFile{f, d.m}, nil
}

func (d machineDisk) Link(old, path string) error {
	if err := d.m.ask(writes); err != nil && err != errShort {
		return &os.LinkError{Op: "link", Old: old, New: path, Err: err}
	}
	err := system{}.Link(old, path)
	if err == nil {
		d.m.record(step{kind: didLink, from: old, path: path})
	}
	return err
}

func (d machineDisk) Rename(old, path string) error {
	if err := d.m.ask(writes); err != nil && err != errShort {
		return &os.LinkError{Op: "rename", Old: old, New: path, Err: err}
	}
	err := system{}.Rename(old, path)
	if err == nil {
		d.m.record(step{kind: didLink, from: old, path: path})
		d.m.record(step{kind: didRemove, path: old})
	}
	return err
}

func (d machineDisk) Remove(path string) error {
	err := system{}.Remove(path)
	if err == nil {
		d.m.record(step{kind: didRemove, path: path})
	}
	return err
}

func (d machineDisk) SyncDir(dir string) error {
	if err := d.m.ask(syncs); err != nil {
		return &os.PathError{Op: "sync", Path: dir, Err: err}
	}
	d.m.record(step{kind: didSyncDir, path: dir})
	return nil // nobody turns this machine off but powerloss_test.go
}

type machineFile struct {
	diskFile
	m *machine
}

func (f *machineFile) Read(p []byte) (int, error) {
	if err := f.m.ask(reads); err != nil {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return f.diskFile.Read(p)
}

func (f *machineFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.m.ask(reads); err != nil {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return f.diskFile.ReadAt(p, off)
}

func (f *machineFile) Write(p []byte) (int, error) {
	err := f.m.ask(writes)
	n := len(p)
	if err == errShort {
		n /= 2
		err = io.ErrShortWrite
	} else if err != nil {
		return 0, &os.PathError{Op: "write", Path: f.Name(), Err: err}
	}
	off, failed := f.size()
	if failed != nil {
		return 0, failed
	}
	n, failed = f.diskFile.Write(p[:n])
	f.m.record(step{kind: didWrite, path: f.Name(), off: off, data: p[:n]})
	return n, errors.Join(err, failed)
}

// size is where the next write goes.
func (f *machineFile) size() (int64, error) {
	info, err := os.Stat(f.Name())
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *machineFile) Sync() error {
	if err := f.m.ask(syncs); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	f.m.record(step{kind: didSync, path: f.Name()})
	return nil
}
