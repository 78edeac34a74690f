package cache

import (
	"context"
	"errors"
	"time"

	"tabard/table"
)

// flight is a question on its way, asked once for all who want the answer.
type flight struct {
	gen    generation
	doomed bool // its key changed meanwhile: the answer is not kept
	done   chan struct{}
	answer answer
	err    error
}

// ask puts a question to the backend, together with everybody who asks the same
// now. Whoever has a stale answer to fall back on waits for a short time only.
func (c *Cache) ask(ctx context.Context, k key, stale bool) (answer, error) {
	f := c.board(ctx, k)
	var impatient <-chan time.Time
	if stale {
		t := time.NewTimer(staleWait)
		defer t.Stop()
		impatient = t.C
	}
	select {
	case <-f.done:
		return f.answer, f.err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-impatient:
		c.fail(errSlow, manyFailures)
		return answer{}, errSlow
	}
}

// errSlow stands for an answer that takes too long to wait for.
var errSlow = errors.New("no answer in time")

// board returns the flight for a question, and begins one where there is none
// that began after the last change.
func (c *Cache) board(ctx context.Context, k key) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	gen := c.generation(k.service)
	if f := c.flights[k]; f != nil && f.gen == gen {
		return f
	}
	f := &flight{gen: gen, done: make(chan struct{})}
	c.flights[k] = f
	go c.fly(context.WithoutCancel(ctx), k, f)
	return f
}

// fly asks. The answer belongs to everybody, so that no caller's end ends it.
func (c *Cache) fly(ctx context.Context, k key, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	defer close(f.done)
	at := c.o.Clock()
	f.answer, f.err = c.question(ctx, k)
	c.land(k, f, at)
}

// land keeps the answer of a flight unless a change made it doubtful.
func (c *Cache) land(k key, f *flight, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[k] == f {
		delete(c.flights, k)
	}
	if f.err != nil {
		if !errors.Is(f.err, table.ErrUnsupported) && !errors.Is(f.err, table.ErrKey) {
			weight := int64(1)
			if errors.Is(f.err, context.DeadlineExceeded) {
				weight = manyFailures
			}
			c.fail(f.err, weight)
		}
		return
	}
	c.healed()
	if !f.doomed {
		c.entries.Set(k, &entry{answer: f.answer, gen: f.gen, at: at})
	}
}

func (c *Cache) question(ctx context.Context, k key) (a answer, err error) {
	switch k.op {
	case opLookup:
		a.row, err = c.backend.Lookup(ctx, k.service, k.text)
		a.found = err == nil
	case opCheck:
		a.found, err = c.backend.Check(ctx, k.service, k.text)
	case opFetch:
		a.rows, err = c.backend.Fetch(ctx, k.service)
	}
	if errors.Is(err, table.ErrNotFound) {
		return answer{}, nil
	}
	return a, err
}

// manyFailures in a row mean that the backend is down. One that cannot read a
// certain row is not.
const manyFailures = 3

// fail notes a failure of the backend. When it counts as down, that is said once,
// and until it is tried again callers with a stale answer do not wait.
func (c *Cache) fail(err error, weight int64) {
	c.stats.errors.Add(1)
	if c.failures.Add(weight) < manyFailures {
		return
	}
	until := c.o.Clock().Add(retryAfter).UnixNano()
	if c.down.Swap(until) == 0 {
		c.o.Log.Warn("table cannot be asked; what is known of it goes on being used", "table", c.o.Name, "stale-ttl", c.o.StaleTTL, "error", err)
	}
}

func (c *Cache) healed() {
	c.failures.Store(0)
	if c.down.Load() != 0 && c.down.Swap(0) != 0 {
		c.o.Log.Info("table answers again", "table", c.o.Name)
	}
}
