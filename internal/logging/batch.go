package logging

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"runtime"
	"sync"
)

const (
	// pieceSize is the most that is written at once, in bytes, unless one line is
	// longer: PIPE_BUF, up to which a pipe keeps what several processes write apart.
	pieceSize = 4096
	// maxWaiting bounds the bytes that wait for a reader that is slow.
	maxWaiting = 256 << 10
)

// Batch is where a busy process logs to: lines that come while others are written,
// or that goroutines which are ready to run are about to write, leave in one call of
// the system. A line waits for nothing else; one of level WARN or above, and with it
// those before it, is written before the call that logs it returns. What a process
// logged in its last moment is lost when it is killed.
type Batch struct {
	w io.Writer

	mu      sync.Mutex
	ready   sync.Cond // there is something to write, or an end
	written sync.Cond // what was taken is written
	buf     []byte
	added   uint64 // lines, ever
	gone    uint64 // lines written, ever
	ended   bool
	done    chan struct{}
}

// NewBatch returns a Batch that writes to w. Close ends its goroutine.
func NewBatch(w io.Writer) *Batch {
	b := &Batch{w: w, done: make(chan struct{})}
	b.ready.L, b.written.L = &b.mu, &b.mu
	go b.run()
	return b
}

// Write takes one or more whole lines. It waits only for a reader that is slow.
// An error of the writer below is not told.
func (b *Batch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.buf) >= maxWaiting && !b.ended {
		b.written.Wait()
	}
	if b.ended {
		return b.w.Write(p)
	}
	b.buf = append(b.buf, p...)
	b.added++
	b.ready.Signal()
	return len(p), nil
}

// flush returns when all that was taken so far is written.
func (b *Batch) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for all := b.added; b.gone < all && !b.ended; {
		b.written.Wait()
	}
}

// Close writes what waits. What is logged afterwards is written at once.
func (b *Batch) Close() error {
	b.flush()
	b.mu.Lock()
	b.ended = true
	b.ready.Signal()
	b.written.Broadcast()
	b.mu.Unlock()
	<-b.done
	return nil
}

func (b *Batch) run() {
	defer close(b.done)
	var spare []byte
	for {
		lines, last, ok := b.take(spare)
		if !ok {
			return
		}
		for rest := lines; len(rest) > 0; {
			n := piece(rest)
			_, _ = b.w.Write(rest[:n]) // whom should it be told?
			rest = rest[n:]
		}
		if spare = lines[:0]; cap(spare) > 2*maxWaiting {
			spare = nil
		}
		b.mu.Lock()
		b.gone = last
		b.written.Broadcast()
		b.mu.Unlock()
	}
}

// take waits for lines and swaps them for an empty buffer. last is the number of the
// last of them.
func (b *Batch) take(spare []byte) (lines []byte, last uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.buf) == 0 && !b.ended {
		b.ready.Wait()
		// Others that can run now often have a line to add as well.
		b.mu.Unlock()
		runtime.Gosched()
		b.mu.Lock()
	}
	if len(b.buf) == 0 {
		return nil, 0, false
	}
	lines, b.buf = b.buf, spare
	return lines, b.added, true
}

// piece is how much of lines to write at once.
func piece(lines []byte) int {
	if len(lines) <= pieceSize {
		return len(lines)
	}
	if n := bytes.LastIndexByte(lines[:pieceSize], '\n'); n >= 0 {
		return n + 1
	}
	if n := bytes.IndexByte(lines, '\n'); n >= 0 {
		return n + 1
	}
	return len(lines)
}

// prompt is a handler whose warnings and errors are written before it returns.
type prompt struct {
	slog.Handler
	b *Batch
}

func (p prompt) Handle(ctx context.Context, r slog.Record) error {
	err := p.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		p.b.flush()
	}
	return err
}

func (p prompt) WithAttrs(attrs []slog.Attr) slog.Handler {
	return prompt{p.Handler.WithAttrs(attrs), p.b}
}

func (p prompt) WithGroup(name string) slog.Handler { return prompt{p.Handler.WithGroup(name), p.b} }
