package queue

import (
	"context"
	"fmt"

	"tabard/internal/rpc"
)

// openBody is a verified body that a worker may read.
type openBody struct {
	body Body
	refs int // leases
}

// load reads a small body, and opens a large one. All are verified.
func (w *poolWorker) load(job *Job, envelopes int) error {
	id := job.Message.ID
	w.mu.Lock()
	b := w.bodies[id]
	if b != nil {
		b.refs += envelopes
	}
	w.mu.Unlock()
	if b != nil {
		return nil
	}
	body, err := w.queue.store.Body(context.Background(), id)
	if err != nil {
		return err
	}
	if body.Size() <= ColumnBody {
		defer body.Close()
		if body.Size() > InlineBody { // read again for each piece, rather than kept in memory
			return nil
		}
		job.Body = make([]byte, body.Size())
		_, err := body.ReadAt(job.Body, 0)
		if err != nil && len(job.Body) > 0 {
			return fmt.Errorf("body of %s: %w", id, err)
		}
		return nil
	}
	w.keep(id, body, envelopes)
	return nil
}

// keep holds a body open for as long as envelopes of its message are leased.
func (w *poolWorker) keep(id MessageID, body Body, envelopes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.bodies[id]; b != nil || w.gone() {
		body.Close()
		if b != nil {
			b.refs += envelopes
		}
		return
	}
	w.bodies[id] = &openBody{body: body, refs: envelopes}
}

// done lets go of a body for one envelope.
func (w *poolWorker) done(id MessageID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.bodies[id]
	if b == nil {
		return
	}
	if b.refs--; b.refs <= 0 {
		delete(w.bodies, id)
		b.body.Close()
	}
}

// Body implements Worker. Only bodies of messages that the worker has are
// given.
func (w *poolWorker) Body(ctx context.Context, id MessageID, offset int64, limit int) ([]byte, error) {
	if offset < 0 || limit < 1 {
		return nil, fmt.Errorf("%w: body from %d, %d bytes", rpc.ErrInvalid, offset, limit)
	}
	w.mu.Lock()
	b := w.bodies[id]
	if b != nil {
		b.refs++
	}
	w.mu.Unlock()
	if b == nil { // small, or not large
		if !w.has(id) {
			return nil, fmt.Errorf("body of %s: %w", id, rpc.ErrNotFound)
		}
		body, err := w.queue.store.Body(ctx, id)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		return readChunk(body, offset, limit)
	}
	defer w.done(id)
	return readChunk(b.body, offset, limit)
}

func readChunk(b Body, offset int64, limit int) ([]byte, error) {
	n := min(int64(limit), InlineBody, b.Size()-offset)
	if n <= 0 {
		return nil, nil
	}
	p := make([]byte, n)
	if got, err := b.ReadAt(p, offset); got < len(p) {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return p, nil
}

func (w *poolWorker) has(id MessageID) bool {
	a := w.queue.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, it := range w.leases {
		if it.msg.ID == id {
			return true
		}
	}
	return false
}
