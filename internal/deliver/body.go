package deliver

import (
	"context"
	"fmt"
	"io"
	"time"

	"tabard/queue"
)

// bodyTimeout bounds one read of a piece of a body from the queue.
const bodyTimeout = time.Minute

// body reads the stored body of a message, any number of times, at most
// queue.InlineBody bytes in memory.
type body struct {
	worker queue.Worker
	id     queue.MessageID
	size   int64  // what must come; 0: not known
	first  []byte // the beginning; never changed, the queue may share it
	whole  bool   // first is everything
}

func newBody(w queue.Worker, job queue.Job) *body {
	return &body{worker: w, id: job.Message.ID, size: job.Message.Size, first: job.Body, whole: job.Body != nil}
}

// reader returns a reader from the start.
func (b *body) reader(ctx context.Context) *bodyReader { return &bodyReader{ctx: ctx, body: b} }

// piece returns what begins at offset; empty at the end.
func (b *body) piece(ctx context.Context, offset int64) ([]byte, error) {
	if offset < int64(len(b.first)) {
		return b.first[offset:], nil
	}
	if b.whole {
		return nil, b.checkSize(offset)
	}
	ctx, cancel := context.WithTimeout(ctx, bodyTimeout)
	defer cancel()
	p, err := b.worker.Body(ctx, b.id, offset, queue.InlineBody)
	if err != nil {
		return nil, fmt.Errorf("%w: read from the queue at %d: %w", errBody, offset, err)
	}
	if offset == 0 {
		b.first = p
	}
	if len(p) == 0 {
		return nil, b.checkSize(offset)
	}
	return p, nil
}

// checkSize refuses a body that is not all there: better late than cut short.
func (b *body) checkSize(n int64) error {
	if b.size > 0 && n != b.size {
		return fmt.Errorf("%w: %d bytes of %d", errBody, n, b.size)
	}
	return nil
}

// bodyReader reads a body in order. It is an io.WriterTo, so that io.Copy
// passes the pieces on without another buffer.
type bodyReader struct {
	ctx    context.Context
	body   *body
	offset int64
	rest   []byte
	ended  bool
}

// Read implements io.Reader.
func (r *bodyReader) Read(p []byte) (int, error) {
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *bodyReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		err := r.fill()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(r.rest)
		total += int64(n)
		if err != nil {
			return total, err
		}
		r.rest = nil
	}
}

func (r *bodyReader) fill() error {
	if len(r.rest) > 0 {
		return nil
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if r.ended {
		return io.EOF
	}
	p, err := r.body.piece(r.ctx, r.offset)
	if err != nil {
		return err
	}
	r.offset += int64(len(p))
	r.rest = p
	if r.ended = len(p) == 0; r.ended {
		return io.EOF
	}
	return nil
}
