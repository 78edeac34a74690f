package dns

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// flight lets identical questions that are asked at the same time share one
// answer.
type flight struct {
	mu    sync.Mutex
	calls map[question]*call
}

type call struct {
	done chan struct{}
	ans  *answer
	err  error
}

func newFlight() *flight { return &flight{calls: make(map[question]*call)} }

// do waits for the answer or for ctx. The question itself goes on without the
// caller who asked first, for at most limit, because others may wait for it.
func (f *flight) do(ctx context.Context, q question, limit time.Duration,
	ask func(context.Context) (*answer, error)) (*answer, error) {
	f.mu.Lock()
	c, ok := f.calls[q]
	if !ok {
		c = &call{done: make(chan struct{})}
		f.calls[q] = c
		go f.run(context.WithoutCancel(ctx), q, c, limit, ask)
	}
	f.mu.Unlock()
	select {
	case <-c.done:
		return c.ans, c.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w: %v", q, ErrTemporary, ctx.Err())
	}
}

func (f *flight) run(ctx context.Context, q question, c *call, limit time.Duration,
	ask func(context.Context) (*answer, error)) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c.ans, c.err = ask(ctx)
	f.mu.Lock()
	delete(f.calls, q)
	f.mu.Unlock()
	close(c.done)
}
