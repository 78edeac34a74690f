package table

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxPEMFile bounds a PEM file, in bytes.
const maxPEMFile = 1 << 20

// fileRef begins a column that is not a key but says where one is.
const fileRef = "file:"

// KeyFiles puts the content of files in place of the columns of a cert answer that
// refer to them: a key that is file:/path. Other columns stay as they are. An error
// names the file, never its content.
func KeyFiles(row Row) (Row, error) {
	var out Row
	for i, col := range row {
		path, ok := KeyFile(col)
		if !ok {
			continue
		}
		if !filepath.IsAbs(path) || strings.ContainsAny(path, "\x00\r\n") {
			return nil, fmt.Errorf("%w: file: wants an absolute path", ErrCert)
		}
		text, err := ReadPEMFile(path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCert, err)
		}
		if out == nil {
			out = append(out, row...)
		}
		out[i] = text
	}
	if out == nil {
		return row, nil
	}
	return out, nil
}

// KeyFile returns the path of the file that a column of a cert answer refers to, if
// it does.
func KeyFile(col string) (path string, ok bool) {
	path, ok = strings.CutPrefix(strings.TrimSpace(col), fileRef)
	return strings.TrimSpace(path), ok
}

// ReadPEMFile reads a regular file of at most 1 MiB.
func ReadPEMFile(path string) (string, error) { return ReadRegular(path, maxPEMFile) }

// ReadRegular reads a regular file of at most max bytes. It does not block on what
// turns out to be a FIFO.
func ReadRegular(path string, max int64) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	info, err := f.Stat()
	var text []byte
	switch {
	case err != nil:
	case !info.Mode().IsRegular() || info.Size() > max:
		err = fmt.Errorf("%s: not a regular file of at most %d bytes", path, max)
	default:
		text, err = io.ReadAll(io.LimitReader(f, max))
	}
	return string(text), errors.Join(err, f.Close())
}
