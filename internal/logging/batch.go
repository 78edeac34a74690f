package logging

import (
	"bytes"
	"context"
	"io"
	"log/slog"

	"tabard/internal/coalesce"
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
	w   io.Writer
	out *coalesce.Writer
}

// NewBatch returns a Batch that writes to w. Close ends its goroutine.
func NewBatch(w io.Writer) *Batch {
	return &Batch{w: w, out: coalesce.NewWriter(pieces{w}, maxWaiting, 2*maxWaiting)}
}

// Write takes one or more whole lines. It waits only for a reader that is slow.
// An error of the writer below is not told.
func (b *Batch) Write(p []byte) (int, error) {
	if b.out.Add(func(lines []byte) []byte { return append(lines, p...) }) == nil {
		return len(p), nil
	}
	b.out.Close() // it is, but lines before this one may still be on their way
	return b.w.Write(p)
}

// Close writes what waits. What is logged afterwards is written at once.
func (b *Batch) Close() error {
	b.out.Close()
	return nil
}

// pieces writes lines in pieces.
type pieces struct{ w io.Writer }

func (p pieces) Write(lines []byte) (int, error) {
	for rest := lines; len(rest) > 0; {
		n := piece(rest)
		_, _ = p.w.Write(rest[:n]) // whom should it be told?
		rest = rest[n:]
	}
	return len(lines), nil
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
		p.b.out.Flush()
	}
	return err
}

func (p prompt) WithAttrs(attrs []slog.Attr) slog.Handler {
	return prompt{p.Handler.WithAttrs(attrs), p.b}
}

func (p prompt) WithGroup(name string) slog.Handler { return prompt{p.Handler.WithGroup(name), p.b} }
