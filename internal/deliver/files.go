package deliver

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// filesystem is what file deliveries need; tests put faults here.
type filesystem interface {
	OpenFile(name string, flag int, perm fs.FileMode) (file, error)
	Mkdir(name string, perm fs.FileMode) error
	Rename(from, to string) error
	Remove(name string) error
	Stat(name string) (fs.FileInfo, error)
	Lstat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
}

// file is an open file.
type file interface {
	io.Writer
	io.ReaderAt
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
	Close() error
	Fd() uintptr
}

// osFS is the real file system.
type osFS struct{}

// OpenFile implements filesystem.
func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Mkdir implements filesystem.
func (osFS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// Rename implements filesystem.
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements filesystem.
func (osFS) Remove(name string) error { return os.Remove(name) }

// Stat implements filesystem.
func (osFS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Lstat implements filesystem.
func (osFS) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(name) }

// SyncDir implements filesystem.
func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	// Some file systems cannot sync a directory and say EINVAL; they have
	// nothing to offer instead.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// makeDirs makes dir and what is missing above it, mode 0700, and makes the new
// names durable. A name whose directory existed is synced too: whoever made it
// may have died before doing so.
func makeDirs(fsys filesystem, dir string) error {
	var missing []string
	at := dir
	for ; ; at = filepath.Dir(at) {
		err := checkDir(fsys, at)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return err
		}
		missing = append(missing, at)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := fsys.Mkdir(missing[i], 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return syncUp(fsys, dir, at)
}

// syncUp syncs every directory above dir. Those from the existing one upwards
// may be unreadable for this user: then they cannot be synced.
func syncUp(fsys filesystem, dir, existing string) error {
	mine := dir != existing
	for at := dir; at != filepath.Dir(at); {
		at = filepath.Dir(at)
		mine = mine && at != existing
		if err := fsys.SyncDir(at); err != nil && (mine || !errors.Is(err, fs.ErrPermission)) {
			return fmt.Errorf("sync directory: %w", err)
		}
	}
	return nil
}

// checkDir says whether path is a directory, and in clear words why not.
func checkDir(fsys filesystem, path string) error {
	info, err := fsys.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s: %w", path, syscall.ENOTDIR)
		}
		return nil
	}
	if link, lerr := fsys.Lstat(path); lerr == nil && link.Mode()&fs.ModeSymlink != 0 {
		return refusal{deferred("4.3.5", "%s: a symbolic link that leads nowhere", path)}
	}
	return err
}
