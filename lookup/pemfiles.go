package lookup

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"tabard/table"
)

// maxPEM bounds a PEM file, in bytes.
const maxPEM = 1 << 20

// pemFiles reads PEM files, again only when they changed. It is safe for
// concurrent use.
type pemFiles struct {
	mu    sync.Mutex
	known map[string]pemFile
}

type pemFile struct {
	info os.FileInfo
	text string
}

func newPEMFiles() *pemFiles { return &pemFiles{known: make(map[string]pemFile)} }

// read returns the contents of the files as columns of a row. Only files named
// in the configuration are asked for, so what is kept is bounded.
func (f *pemFiles) read(paths ...string) (table.Row, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	row := make(table.Row, 0, len(paths))
	for _, path := range paths {
		text, err := f.one(path)
		if err != nil {
			return nil, err
		}
		row = append(row, text)
	}
	return row, nil
}

func (f *pemFiles) one(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if k, ok := f.known[path]; ok && os.SameFile(k.info, info) && k.info.Size() == info.Size() && k.info.ModTime().Equal(info.ModTime()) {
		return k.text, nil
	}
	text, err := readRegular(path, maxPEM)
	if err != nil {
		return "", err
	}
	f.known[path] = pemFile{info, string(text)}
	return string(text), nil
}

// readRegular reads a regular file of at most max bytes. It does not block on
// what turns out to be a FIFO.
func readRegular(path string, max int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > max {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, max)
	}
	return io.ReadAll(io.LimitReader(f, max))
}
