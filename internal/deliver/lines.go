package deliver

import (
	"bytes"
	"context"
	"io"
)

// outBuffer is the largest write to a file or pipe, in bytes.
const outBuffer = 32 << 10

// lineWriter turns CRLF into LF. With quote it also quotes lines as mboxrd
// does: a line that begins with any number of '>' and then "From " gets one
// '>' more, so that nothing is lost and no line looks like a separator.
type lineWriter struct {
	w     io.Writer
	buf   []byte
	cr    bool // a CR is held back
	quote bool
	from  int  // quote: letters of "From " matched since the line began; -1: not at its beginning
	last  byte // the last byte taken
}

const fromWord = "From "

func newLineWriter(w io.Writer, size int, quote bool) *lineWriter {
	lw := &lineWriter{w: w, buf: make([]byte, 0, min(max(size, 512), outBuffer)), quote: quote}
	if !quote {
		lw.from = -1
	}
	return lw
}

// Write implements io.Writer.
func (lw *lineWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if lw.cr && p[0] != '\n' {
			if err := lw.put([]byte{'\r'}); err != nil {
				return 0, err
			}
		}
		lw.cr = false
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			i = len(p)
		}
		if err := lw.put(p[:i]); err != nil {
			return 0, err
		}
		if i < len(p) {
			lw.cr = true
			i++
		}
		p = p[i:]
	}
	return total, nil
}

// put takes text with LF line ends.
func (lw *lineWriter) put(p []byte) error {
	if !lw.quote {
		return lw.raw(p)
	}
	for len(p) > 0 {
		if lw.from < 0 {
			i := bytes.IndexByte(p, '\n') + 1
			if i == 0 {
				return lw.raw(p)
			}
			lw.from = 0
			if err := lw.raw(p[:i]); err != nil {
				return err
			}
			p = p[i:]
			continue
		}
		if err := lw.lineStart(p[0]); err != nil {
			return err
		}
		p = p[1:]
	}
	return nil
}

// lineStart takes one byte while it is open whether the line must be quoted.
// The letters of "From " matched so far are held back; the additional '>' may
// stand after those that are there already.
func (lw *lineWriter) lineStart(c byte) error {
	if c == fromWord[lw.from] {
		if lw.from++; lw.from < len(fromWord) {
			return nil
		}
		lw.from = -1
		return lw.raw([]byte(">" + fromWord))
	}
	held := fromWord[:lw.from]
	if c == '\n' || c == '>' && held == "" {
		lw.from = 0
	} else {
		lw.from = -1
	}
	return lw.raw(append([]byte(held), c))
}

// raw appends to the buffer, and writes it out when it is full.
func (lw *lineWriter) raw(p []byte) error {
	if len(p) > 0 {
		lw.last = p[len(p)-1]
	}
	for len(p) > 0 {
		if len(lw.buf) == cap(lw.buf) {
			if err := lw.writeOut(); err != nil {
				return err
			}
		}
		n := min(len(p), cap(lw.buf)-len(lw.buf))
		lw.buf = append(lw.buf, p[:n]...)
		p = p[n:]
	}
	return nil
}

func (lw *lineWriter) writeOut() error {
	n, err := lw.w.Write(lw.buf)
	if err == nil && n < len(lw.buf) {
		err = io.ErrShortWrite
	}
	lw.buf = lw.buf[:0]
	return err
}

// flush writes what is held back.
func (lw *lineWriter) flush() error {
	if lw.cr {
		lw.cr = false
		if err := lw.put([]byte{'\r'}); err != nil {
			return err
		}
	}
	if lw.from > 0 {
		held := fromWord[:lw.from]
		lw.from = -1
		if err := lw.raw([]byte(held)); err != nil {
			return err
		}
	}
	return lw.writeOut()
}

// writeTo writes the message as it goes on disk: prelude, then the body with LF
// line ends.
func (p *parcel) writeTo(ctx context.Context, w io.Writer) error {
	prelude := p.prelude()
	lw := newLineWriter(w, len(prelude)+int(min(p.size(), outBuffer)), false)
	if err := lw.raw([]byte(prelude)); err != nil {
		return err
	}
	if _, err := io.Copy(lw, p.body.reader(ctx)); err != nil {
		return err
	}
	return lw.flush()
}

// size is the number of bytes the body is known to have.
func (p *parcel) size() int64 { return max(p.msg.Size, int64(len(p.body.first))) }
