// Package coalesce lets many goroutines write to one place with few calls.
package coalesce

import (
	"errors"
	"io"
	"runtime"
	"sync"
)

// ErrClosed is the answer of a Writer that was closed.
var ErrClosed = errors.New("writer is closed")

// Writer sends what many goroutines add. What arrives while a write is under way, or
// from goroutines that are ready to run, leaves together with the next one. Nothing
// waits for anything else.
type Writer struct {
	w     io.Writer
	limit int // of bytes that wait; 0: no limit of its own
	keep  int // bytes of the largest buffer that is kept for the next write

	mu     sync.Mutex
	ready  sync.Cond // there is something to write, or an end
	moved  sync.Cond // the waiting bytes were taken, or written, or an end
	buf    []byte
	added  uint64 // calls of Add, ever
	sent   uint64 // of those, what was written
	err    error  // why nothing can be written any more
	ending bool
	done   chan struct{}
}

// NewWriter starts the goroutine that writes to w; Close or Fail ends it.
func NewWriter(w io.Writer, limit, keep int) *Writer {
	c := &Writer{w: w, limit: limit, keep: keep, done: make(chan struct{})}
	c.ready.L, c.moved.L = &c.mu, &c.mu
	go c.run()
	return c
}

// Add appends to what is sent next. It waits only while limit bytes are waiting already.
// The error is that of the write that failed, that of Fail, or ErrClosed.
func (c *Writer) Add(more func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.limit > 0 && len(c.buf) >= c.limit && c.err == nil && !c.ending {
		c.moved.Wait()
	}
	switch {
	case c.err != nil:
		return c.err
	case c.ending:
		return ErrClosed
	}
	c.buf = more(c.buf)
	c.added++
	c.ready.Signal()
	return nil
}

// Flush returns when all that was added so far is written, or nothing more is.
func (c *Writer) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for all := c.added; c.sent < all && c.err == nil; {
		c.moved.Wait()
	}
}

func (c *Writer) run() {
	defer close(c.done)
	var spare []byte
	for {
		buf, last, ok := c.take(spare)
		if !ok {
			return
		}
		if _, err := c.w.Write(buf); err != nil {
			c.Fail(err)
			return
		}
		if spare = buf[:0]; cap(spare) > c.keep {
			spare = nil
		}
		c.mu.Lock()
		c.sent = last
		c.moved.Broadcast()
		c.mu.Unlock()
	}
}

// take waits for something to write and swaps it for an empty buffer. last is how many
// calls of Add are in it and in all before.
func (c *Writer) take(spare []byte) (buf []byte, last uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.buf) == 0 && c.err == nil && !c.ending {
		c.ready.Wait()
		// Others that can run now often have something to add as well.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	if c.err != nil || len(c.buf) == 0 {
		return nil, 0, false
	}
	buf, c.buf = c.buf, spare
	c.moved.Broadcast()
	return buf, c.added, true
}

// Fail ends the writer at once; what waits is dropped. The first error counts.
func (c *Writer) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.buf = nil
	c.ready.Broadcast()
	c.moved.Broadcast()
}

// Close sends what waits and ends the writer. It returns when the last byte is written
// or a write failed.
func (c *Writer) Close() {
	c.mu.Lock()
	c.ending = true
	c.ready.Broadcast()
	c.moved.Broadcast()
	c.mu.Unlock()
	<-c.done
}
