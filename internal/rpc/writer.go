package rpc

import (
	"net"
	"runtime"
	"sync"
)

// keepBuffer is the largest buffer that is kept for the next use. What maxBulk requests
// of 64 KiB need is kept.
const keepBuffer = 512 << 10

// writer sends frames from many goroutines over one connection. What arrives
// while a write is under way leaves together with the next one.
type writer struct {
	conn  net.Conn
	limit int // of bytes that wait; 0: no limit of its own

	mu     sync.Mutex
	ready  sync.Cond // there is something to write, or an end
	space  sync.Cond // the waiting bytes were taken, or an end
	buf    []byte
	err    error // why nothing can be written any more
	ending bool
	done   chan struct{}
}

// newWriter starts the goroutine that writes; close or fail ends it.
func newWriter(conn net.Conn, limit int) *writer {
	w := &writer{conn: conn, limit: limit, done: make(chan struct{})}
	w.ready.L, w.space.L = &w.mu, &w.mu
	go w.run()
	return w
}

// add appends a frame to what is sent next. It waits only while limit bytes are
// waiting already.
func (w *writer) add(frame func([]byte) []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.limit > 0 && len(w.buf) >= w.limit && w.err == nil {
		w.space.Wait()
	}
	if w.err != nil {
		return w.err
	}
	w.buf = frame(w.buf)
	w.ready.Signal()
	return nil
}

func (w *writer) run() {
	defer close(w.done)
	var spare []byte
	for {
		buf, ok := w.take(spare)
		if !ok {
			return
		}
		if _, err := w.conn.Write(buf); err != nil {
			w.fail(err)
			return
		}
		if spare = buf[:0]; cap(spare) > keepBuffer {
			spare = nil
		}
	}
}

// take waits for something to write and swaps it for an empty buffer.
func (w *writer) take(spare []byte) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buf) == 0 && w.err == nil && !w.ending {
		w.ready.Wait()
		// Others that can run now often have a frame to add as well.
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
	}
	if w.err != nil || len(w.buf) == 0 {
		return nil, false
	}
	buf := w.buf
	w.buf = spare
	w.space.Broadcast()
	return buf, true
}

// fail ends the writer at once; what waits is dropped.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.buf = nil
	w.ready.Broadcast()
	w.space.Broadcast()
}

// close sends what waits and ends the writer. It returns when the last byte is
// written or the connection failed.
func (w *writer) close() {
	w.mu.Lock()
	w.ending = true
	w.ready.Broadcast()
	w.mu.Unlock()
	<-w.done
}
