package sqlite

import (
	"errors"
	"io"
	"os"
)

// disk is what bodies ask of the file system. Tests have one that fails.
type disk interface {
	CreateTemp(dir, prefix string) (diskFile, error) // mode 0600
	Open(path string) (diskFile, error)
	Link(old, path string) error
	Rename(old, path string) error
	Remove(path string) error
	SyncDir(dir string) error                        // makes the names in it durable
	Space(f *os.File) (free, total int64, err error) // of the file system of f, bytes
}

// diskFile is an open file.
type diskFile interface {
	io.ReadWriteCloser
	io.ReaderAt
	Name() string
	Stat() (os.FileInfo, error)
	Sync() error
}

// system is the file system itself.
type system struct{}

func (system) CreateTemp(dir, prefix string) (diskFile, error) { return os.CreateTemp(dir, prefix) }

func (system) Open(path string) (diskFile, error) { return os.Open(path) }

func (system) Link(old, path string) error { return os.Link(old, path) }

func (system) Rename(old, path string) error { return os.Rename(old, path) }

func (system) Remove(path string) error { return os.Remove(path) }

func (system) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
