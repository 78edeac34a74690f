package bodycode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Reader reads the clear bytes of a stored body at any offset. It is safe for
// concurrent use, and holds one chunk at most between calls.
type Reader struct {
	coder  *Coder
	stored io.ReaderAt
	sealer *sealer
	end    ending
	chunks []chunk

	mu     sync.Mutex
	cached int    // which chunk part is
	part   []byte // nil: none yet
}

// chunk is where a chunk begins, behind its head.
type chunk struct {
	at   int64
	head uint32
}

func (k chunk) length() int64 { return int64(k.head & lengthMask) }

// NewReader opens the stored form, of storedSize bytes, of the body of message id,
// which has size bytes. NoKeyError: it is encrypted under a key that is missing;
// UnknownError: a newer version stored it; ErrDamaged: it cannot be what was written. That what it returns is what was written
// is known when all of it has been read.
func (c *Coder) NewReader(stored io.ReaderAt, storedSize int64, e Encoding, id, size int64) (*Reader, error) {
	if !e.Known() || e == "" {
		return nil, &UnknownError{e}
	}
	r := &Reader{coder: c, stored: stored, end: ending{id, size}}
	at := int64(0)
	if e.Key() != "" {
		salt := make([]byte, saltSize)
		if err := readFull(stored, salt, 0); err != nil {
			return nil, err
		}
		var err error
		if r.sealer, err = c.sealer(e, salt); err != nil {
			return nil, err
		}
		at = saltSize
	}
	return r, r.index(at, storedSize)
}

// index finds the chunks, which must be as many and as long as the size says.
func (r *Reader) index(at, storedSize int64) error {
	size := r.end.size
	if size < 0 {
		return fmt.Errorf("%w: size %d", ErrDamaged, size)
	}
	count := max(1, size/ChunkSize+min(1, size%ChunkSize))
	if count*headSize > storedSize { // no memory for what cannot be there
		return fmt.Errorf("%w: %d bytes for %d chunks", ErrDamaged, storedSize, count)
	}
	r.chunks = make([]chunk, count)
	var head [headSize]byte
	for i := range r.chunks {
		if err := readFull(r.stored, head[:], at); err != nil {
			return err
		}
		k := chunk{at + headSize, binary.BigEndian.Uint32(head[:])}
		last := i == len(r.chunks)-1
		if k.head&flagLast != 0 != last || !r.fits(k, r.clearLen(i)) {
			return fmt.Errorf("%w: chunk %d", ErrDamaged, i)
		}
		r.chunks[i], at = k, k.at+k.length()
	}
	if at != storedSize {
		return fmt.Errorf("%w: %d bytes, not %d", ErrDamaged, storedSize, at)
	}
	return nil
}

// fits reports whether a chunk can hold n bytes of the body.
func (r *Reader) fits(k chunk, n int) bool {
	length := k.length()
	if r.sealer != nil {
		length -= tagSize
	}
	if k.head&flagZstd != 0 {
		return 0 < length && length < int64(n)
	}
	return length == int64(n)
}

// clearLen is how many bytes of the body are in chunk i.
func (r *Reader) clearLen(i int) int {
	return int(min(ChunkSize, r.end.size-int64(i)*ChunkSize))
}

// readFull reads all of p; bytes that are not there are damage.
func readFull(from io.ReaderAt, p []byte, at int64) error {
	n, err := from.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends early", ErrDamaged)
	}
	return err
}

// Size is the size of the body.
func (r *Reader) Size() int64 { return r.end.size }

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read body at %d", off)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= r.end.size {
			return done, io.EOF
		}
		n, err := r.readPart(p[done:], int(at/ChunkSize), int(at%ChunkSize))
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// readPart reads from chunk i, what is wanted of it. Who wants all gets it
// without a copy.
func (r *Reader) readPart(p []byte, i, from int) (int, error) {
	if n := r.clearLen(i); from == 0 && len(p) >= n {
		return n, r.decode(p[:n], i)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.part == nil || r.cached != i {
		if cap(r.part) < r.clearLen(i) {
			r.part = make([]byte, r.clearLen(i))
		}
		part := r.part[:r.clearLen(i)]
		r.part = nil // until it is read
		if err := r.decode(part, i); err != nil {
			return 0, err
		}
		r.part, r.cached = part, i
	}
	return copy(p, r.part[from:]), nil
}

// decode reads chunk i into p, which has its size.
func (r *Reader) decode(p []byte, i int) error {
	k := r.chunks[i]
	if r.sealer == nil && k.head&flagZstd == 0 {
		return readFull(r.stored, p, k.at)
	}
	buf := r.coder.buffer()
	defer r.coder.buffers.Put(buf)
	stored := (*buf)[:k.length()]
	if err := readFull(r.stored, stored, k.at); err != nil {
		return err
	}
	if r.sealer != nil {
		var end *ending
		if i == len(r.chunks)-1 {
			end = &r.end
		}
		var err error
		stored, err = r.sealer.aead.Open(stored[:0], nonce(uint32(i), end != nil), stored, r.sealer.associated(k.head, end))
		if err != nil {
			return fmt.Errorf("%w: chunk %d was changed after it was encrypted", ErrDamaged, i)
		}
	}
	if k.head&flagZstd == 0 {
		copy(p, stored)
		return nil
	}
	out, err := r.coder.unzip.DecodeAll(stored, p[:0:len(p)])
	if err != nil || len(out) != len(p) {
		return fmt.Errorf("%w: chunk %d does not decompress", ErrDamaged, i)
	}
	return nil
}
