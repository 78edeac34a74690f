package bodycode

import (
	"errors"
	"io"
)

// Writer encodes a body while it is written. It holds one chunk.
type Writer struct {
	coder    *Coder
	to       io.Writer
	sealer   *sealer
	encoding Encoding
	part     *[]byte // not yet written; nil after the end
	n        uint32  // chunks written
	size     int64   // of the body, so far
}

// NewWriter begins a stored body. The first bytes are written at once, so that
// a fault of w shows early.
func (c *Coder) NewWriter(w io.Writer) (*Writer, error) {
	e := c.Encoding()
	head, s, err := c.begin(e)
	if err == nil && len(head) > 0 {
		_, err = w.Write(head)
	}
	if err != nil {
		return nil, err
	}
	part := c.buffer()
	*part = (*part)[:0]
	return &Writer{coder: c, to: w, sealer: s, encoding: e, part: part}, nil
}

// Encoding is how the body is stored.
func (w *Writer) Encoding() Encoding { return w.encoding }

var errEnded = errors.New("body writer: used after its end")

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if w.part == nil {
		return 0, errEnded
	}
	done := 0
	for len(p) > 0 {
		if len(*w.part) == ChunkSize {
			if err := w.flush(nil); err != nil {
				return done, err
			}
		}
		n := min(len(p), ChunkSize-len(*w.part))
		*w.part = append(*w.part, p[:n]...)
		p, done, w.size = p[n:], done+n, w.size+int64(n)
	}
	return done, nil
}

// Close writes the rest of the body, which is that of message id. Exactly one of
// Close and Discard ends the writing.
func (w *Writer) Close(id int64) error {
	if w.part == nil {
		return errEnded
	}
	err := w.flush(&ending{id, w.size})
	w.Discard()
	return err
}

// Discard ends the writing of a body that nobody wants any more.
func (w *Writer) Discard() {
	if w.part != nil {
		w.coder.buffers.Put(w.part)
		w.part = nil
	}
}

func (w *Writer) flush(end *ending) error {
	out := w.coder.buffer()
	defer w.coder.buffers.Put(out)
	*out = w.coder.appendChunk((*out)[:0], w.sealer, w.n, *w.part, end)
	*w.part = (*w.part)[:0]
	w.n++
	_, err := w.to.Write(*out)
	return err
}
