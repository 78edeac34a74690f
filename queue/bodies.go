package queue

import (
	"context"
	"fmt"

	"tabard/internal/rpc"
)

// openBody is a body that a worker may read in pieces.
type openBody struct {
	body Body  // verified; nil: a column, to be read from the store
	kept int64 // bytes of a column that it has in memory
	refs int   // leases, and reads
}

// keptColumns bounds the bytes of columns that stay in memory for a worker that reads
// them in pieces. What finds no room is read and verified anew for each piece. Half of
// it is for what is leased, the rest for what is being read: leases may wait for long.
const keptColumns = 32 << 20

// load reads a small body, and opens one that is read in pieces. All are verified.
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
	if body.Size() > InlineBody {
		w.open(id, body, envelopes)
		return nil
	}
	defer body.Close()
	job.Body = make([]byte, body.Size())
	if _, err := body.ReadAt(job.Body, 0); err != nil && len(job.Body) > 0 {
		return fmt.Errorf("body of %s: %w", id, err)
	}
	return nil
}

// open makes a body one that can be read for as long as envelopes of its message are
// leased.
func (w *poolWorker) open(id MessageID, body Body, envelopes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.bodies[id]
	if b != nil || w.gone() {
		body.Close()
		if b != nil {
			b.refs += envelopes
		}
		return
	}
	b = &openBody{refs: envelopes}
	w.bodies[id] = b
	if body.Size() > ColumnBody {
		b.body = body
	} else if !w.keep(b, body, w.room/2) {
		body.Close()
	}
}

// keep has a column stay in memory, if all that do are no more than so many bytes then.
// Needs mu.
func (w *poolWorker) keep(b *openBody, body Body, most int64) bool {
	if w.gone() || w.kept+body.Size() > most {
		return false
	}
	b.body, b.kept = body, body.Size()
	w.kept += b.kept
	return true
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
		w.close(id, b)
	}
}

// close ends a body. Needs mu.
func (w *poolWorker) close(id MessageID, b *openBody) {
	delete(w.bodies, id)
	if w.kept -= b.kept; b.body != nil {
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
	if b == nil && !w.has(id) {
		return nil, fmt.Errorf("body of %s: %w", id, rpc.ErrNotFound)
	}
	if b != nil {
		defer w.done(id)
	}
	body, end, err := w.reading(ctx, id, b)
	if err != nil {
		return nil, err
	}
	defer end()
	return readChunk(body, offset, limit)
}

// reading returns a body, and what is to be called when it has been read. b, if there is
// one, is where it stays.
func (w *poolWorker) reading(ctx context.Context, id MessageID, b *openBody) (body Body, end func(), err error) {
	stays := func() {}
	if b != nil {
		w.mu.Lock()
		body = b.body
		w.mu.Unlock()
		if body != nil {
			return body, stays, nil
		}
	}
	if body, err = w.queue.store.Body(ctx, id); err != nil {
		return nil, nil, err
	}
	if b != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if b.body == nil && w.keep(b, body, w.room) {
			return body, stays, nil
		}
	}
	return body, func() { body.Close() }, nil
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

// has reports whether the worker has envelopes of a message.
func (w *poolWorker) has(id MessageID) bool {
	a := w.queue.active
	a.mu.Lock()
	defer a.mu.Unlock()
	return w.messages[id] > 0
}

// lease notes that the worker has an item. Needs active.mu.
func (w *poolWorker) lease(it *item) {
	w.leases[it.env.ID] = it
	w.messages[it.msg.ID]++
}

// unlease notes that it has it no more. Needs active.mu.
func (w *poolWorker) unlease(it *item) {
	delete(w.leases, it.env.ID)
	if w.messages[it.msg.ID]--; w.messages[it.msg.ID] <= 0 {
		delete(w.messages, it.msg.ID)
	}
	w.queue.active.unlease(it)
}
