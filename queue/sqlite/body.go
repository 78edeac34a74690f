package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"tabard/queue"
)

// column is a body that was kept in its row.
type column struct{ *bytes.Reader }

func (column) Close() error { return nil }

// file is a body that was kept in a file.
type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }

// Body implements queue.Store.
func (s *Store) Body(ctx context.Context, id queue.MessageID) (queue.Body, error) {
	row, err := s.reads.body(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("body of %s: %w", id, err)
	}
	if !row.file.Valid {
		if int64(len(row.body)) != row.size || queue.Checksum(0, row.body) != row.checksum {
			return nil, fmt.Errorf("body of %s: column: %w", id, queue.ErrCorrupt)
		}
		return column{bytes.NewReader(row.body)}, nil
	}
	f, err := s.files.open(row)
	if errors.Is(err, os.ErrNotExist) {
		// Removed since the row was read, or lost.
		if _, again := s.reads.body(ctx, id); again != nil {
			return nil, fmt.Errorf("body of %s: %w", id, again)
		}
		err = fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("body of %s: %w", id, err)
	}
	return f, nil
}

// open opens the file of a row and verifies all of it.
func (b *bodyFiles) open(row bodyRow) (queue.Body, error) {
	f, err := os.Open(b.path(row.file.String))
	if err != nil {
		return nil, err
	}
	if err := verify(f, row); err != nil {
		f.Close()
		return nil, fmt.Errorf("file %s: %w", row.file.String, err)
	}
	return file{f, row.size}, nil
}

func verify(f *os.File, row bodyRow) error {
	var sum uint32
	var size int64
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		sum = queue.Checksum(sum, buf[:n])
		size += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if size != row.size || sum != row.checksum {
		return queue.ErrCorrupt
	}
	return nil
}
