package queue

import (
	"context"
	"errors"
	"fmt"
)

// Create implements Client.
func (q *Queue) Create(ctx context.Context) (Writer, error) {
	if q.ctx.Err() != nil {
		return nil, ErrClosed
	}
	return &writer{queue: q}, ctx.Err()
}

// writer keeps a body in memory until it is larger than a column may be, then
// in the store's stage.
type writer struct {
	queue *Queue
	buf   []byte
	stage Stage
	epoch func() // ends what began with the stage
	size  int64
	sum   uint32
	err   error // of a Write: the body is incomplete
	ended bool
}

var errEnded = errors.New("message writer: used after its end")

// Write implements Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.ended {
		return 0, errEnded
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.err = w.append(p); w.err != nil {
		return 0, w.err
	}
	w.size += int64(len(p))
	w.sum = Checksum(w.sum, p)
	return len(p), nil
}

func (w *writer) append(p []byte) error {
	if w.stage == nil && len(w.buf)+len(p) <= ColumnBody {
		w.buf = append(w.buf, p...)
		return nil
	}
	if w.stage == nil {
		w.epoch = w.queue.epochs.begin()
		var err error
		if w.stage, err = w.queue.store.Stage(); err != nil {
			return fmt.Errorf("message body: %w", err)
		}
		if _, err := w.stage.Write(w.buf); err != nil {
			return fmt.Errorf("message body: %w", err)
		}
		w.buf = nil
	}
	if _, err := w.stage.Write(p); err != nil {
		return fmt.Errorf("message body: %w", err)
	}
	return nil
}

// leave notes that nothing of the stage will be stored any more that is not yet. A
// second call does nothing.
func (w *writer) leave() {
	if w.epoch != nil {
		w.epoch()
		w.epoch = nil
	}
}

// Commit implements Writer.
func (w *writer) Commit(ctx context.Context, s Submission) error {
	defer w.leave()
	m, err := w.finish(ctx, s)
	if err == nil {
		err = w.queue.insert(ctx, m)
	}
	w.undo(err)
	return err
}

// undo takes a staged body away whose message was not stored, as err tells. A
// transaction whose sync failed may be found complete by the next process: then its
// body must be there.
func (w *writer) undo(err error) {
	if err != nil && w.stage != nil && !errors.Is(err, ErrBroken) {
		w.stage.Discard()
	}
}

// finish ends the writing, and makes a staged body durable.
func (w *writer) finish(ctx context.Context, s Submission) (*NewMessage, error) {
	return w.finishAs(func(size int64) (*NewMessage, error) { return w.queue.prepare(ctx, s, size) })
}

// finishAs is finish of a message that is told the size of its body.
func (w *writer) finishAs(prepare func(size int64) (*NewMessage, error)) (*NewMessage, error) {
	if w.ended {
		return nil, errEnded
	}
	w.ended = true
	if w.err != nil {
		return nil, w.err
	}
	m, err := prepare(w.size)
	if err != nil {
		return nil, err
	}
	m.Body, m.Checksum = w.buf, w.sum
	if w.stage != nil {
		m.Staged, m.Encoding = true, w.stage.Encoding()
		if err := w.stage.Keep(m.Message.ID); err != nil {
			return nil, fmt.Errorf("message body: %w", err)
		}
	}
	return m, nil
}

// Abort implements Writer.
func (w *writer) Abort() {
	if w.ended {
		return
	}
	w.ended = true
	w.buf = nil
	w.leave()
	if w.stage != nil {
		w.stage.Discard()
	}
}
