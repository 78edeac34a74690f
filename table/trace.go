package table

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// Asked is one question that was put to a table, and its answer.
type Asked struct {
	Table   string
	Service Service
	Key     string // empty: the whole list
	Found   bool
	Rows    []Row // as they came, secrets included; none where the question was only whether the key is in the table
	Err     error // why there is no answer; never ErrNotFound
}

// Trace collects the questions that are put to tables while something is worked
// out, for telling people how it came about. It is safe for concurrent use.
type Trace struct {
	mu    sync.Mutex
	asked []Asked
}

// maxTraced bounds a trace.
const maxTraced = 10_000

type traceKey struct{}

// WithTrace returns a context whose questions t collects.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// Take returns the questions since the last Take, in their order.
func (t *Trace) Take() []Asked {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.asked
	t.asked = nil
	return taken
}

// note adds a question to the trace of ctx, if there is one.
func (t *Table) note(ctx context.Context, s Service, key string, found bool, rows []Row, err error) {
	trace, ok := ctx.Value(traceKey{}).(*Trace)
	if !ok {
		return
	}
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	trace.mu.Lock()
	defer trace.mu.Unlock()
	if len(trace.asked) < maxTraced {
		trace.asked = append(trace.asked, Asked{t.name, s, key, found, slices.Clone(rows), err})
	}
}
