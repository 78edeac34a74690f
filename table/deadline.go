package table

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that ends at a time, as of context.WithTimeout, whose timer is
// made for the first who waits for its end. Most answers come from memory, where nobody
// does, and a timer would cost as much as the answer.
type deadline struct {
	context.Context // what it is part of
	at              time.Time

	mu     sync.Mutex // guards what follows
	timed  context.Context
	cancel context.CancelFunc
	ended  bool
}

// within returns a context that ends with ctx, after d, or with the call of the function
// that it returns.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	at := time.Now().Add(d)
	if earlier, ok := ctx.Deadline(); ok && earlier.Before(at) {
		at = earlier
	}
	c := &deadline{Context: ctx, at: at}
	return c, c.end
}

// end is the end of whatever was asked.
func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if d.cancel != nil {
		d.cancel()
	}
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} { return d.made().Done() }

// Err implements context.Context.
func (d *deadline) Err() error {
	d.mu.Lock()
	timed, ended := d.timed, d.ended
	d.mu.Unlock()
	switch {
	case timed != nil:
		return timed.Err()
	case d.Context.Err() != nil:
		return d.Context.Err()
	case ended:
		return context.Canceled
	case !time.Now().Before(d.at):
		return d.made().Err() // as everybody sees it from now on
	}
	return nil
}

// Value implements context.Context. By it, contexts find those that they are made of.
func (d *deadline) Value(key any) any {
	d.mu.Lock()
	timed := d.timed
	d.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return d.Context.Value(key)
}

// made returns the context with a timer.
func (d *deadline) made() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timed == nil {
		d.timed, d.cancel = context.WithDeadline(d.Context, d.at)
		if d.ended {
			d.cancel()
		}
	}
	return d.timed
}
