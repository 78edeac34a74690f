package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"tabard/internal/bodycode"
	"tabard/queue"
)

// column is a body that was kept in its row.
type column struct{ *bytes.Reader }

func (column) Close() error { return nil }

// file is a body that was kept in a file.
type file struct {
	diskFile
	size int64
}

func (f file) Size() int64 { return f.size }

// coded is a body in a file that is not stored as it is.
type coded struct {
	*bodycode.Reader
	io.Closer
}

// Body implements queue.Store.
func (s *Store) Body(ctx context.Context, id queue.MessageID) (queue.Body, error) {
	row, err := s.reads.body(ctx, id)
	var body queue.Body
	for err == nil {
		if body, err = s.open(id, row); !errors.Is(err, os.ErrNotExist) {
			break
		}
		// Removed since the row was read, or put under another name, or lost.
		old := row.file
		if row, err = s.reads.body(ctx, id); err == nil && row.file == old {
			err = fmt.Errorf("file %s: %w: %w", old.String, queue.ErrCorrupt, os.ErrNotExist)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("body of %s: %w", id, err)
	}
	return body, nil
}

// open opens a body and verifies all of it.
func (s *Store) open(id queue.MessageID, row bodyRow) (queue.Body, error) {
	if row.file.Valid {
		return s.file(id, row)
	}
	body, err := s.column(id, row)
	if err != nil {
		return nil, fmt.Errorf("column: %w", err)
	}
	return body, nil
}

// decode opens what is stored in another form than its own, and has read none of it.
func (s *Store) decode(id queue.MessageID, row bodyRow, stored io.ReaderAt, size int64) (*bodycode.Reader, error) {
	r, err := s.coder.Load().NewReader(stored, size, row.encoding, int64(id), row.size)
	return r, decoded(err)
}

// decoded gives an error the identity that package queue knows it by.
func decoded(err error) error {
	if errors.Is(err, bodycode.ErrDamaged) {
		return fmt.Errorf("%w: %w", queue.ErrCorrupt, err)
	}
	return err
}

// column opens a body that is in its row.
func (s *Store) column(id queue.MessageID, row bodyRow) (queue.Body, error) {
	text := row.body
	if row.encoding != "" {
		r, err := s.decode(id, row, bytes.NewReader(row.body), int64(len(row.body)))
		if err != nil {
			return nil, err
		}
		text = make([]byte, row.size)
		if _, err := r.ReadAt(text, 0); err != nil && len(text) > 0 {
			return nil, decoded(err)
		}
	}
	if int64(len(text)) != row.size || queue.Checksum(0, text) != row.checksum {
		return nil, queue.ErrCorrupt
	}
	return column{bytes.NewReader(text)}, nil
}

// file opens a body that is in a file.
func (s *Store) file(id queue.MessageID, row bodyRow) (queue.Body, error) {
	f, err := s.files.disk.Open(s.files.path(row.file.String))
	if err != nil {
		return nil, err
	}
	body, err := s.inFile(id, row, f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("file %s: %w", row.file.String, err)
	}
	return body, nil
}

func (s *Store) inFile(id queue.MessageID, row bodyRow, f diskFile) (queue.Body, error) {
	if row.encoding == "" {
		return file{f, row.size}, verify(f, row)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := s.decode(id, row, f, info.Size())
	if err == nil {
		err = decoded(verify(io.NewSectionReader(r, 0, r.Size()), row))
	}
	return coded{r, f}, err
}

// verify reads a whole body, and compares it with what its row says.
func verify(r io.Reader, row bodyRow) error {
	var sum uint32
	var size int64
	buf := make([]byte, bodycode.ChunkSize)
	for {
		n, err := r.Read(buf)
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
