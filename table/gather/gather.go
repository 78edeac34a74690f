// Package gather puts questions that wait at the same moment into one round trip.
//
// A lone caller is asked for at once and alone: nothing is ever delayed in the
// hope of company. Only while every lane is busy do callers wait, and whoever
// waits when a lane falls free goes out together with the others.
package gather

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// ErrSplit is wrapped by an asker's error when one of several keys may be at
// fault: every key is then asked alone.
var ErrSplit = errors.New("ask one at a time")

// Ask answers keys in one round trip: as many answers as keys, in their order.
// An error concerns all of them. Keys may repeat.
type Ask[K, V any] func(ctx context.Context, keys []K) ([]V, error)

// Options bounds a Gatherer.
type Options struct {
	Lanes   int           // round trips at a time; 0: 2
	Max     int           // keys in one; 0: 128
	Timeout time.Duration // of a round trip for callers without a deadline; 0: 10 s
}

// Gatherer asks for many callers at once. It is safe for concurrent use.
type Gatherer[K, V any] struct {
	ask Ask[K, V]
	o   Options

	mu      sync.Mutex
	busy    int
	waiting []*call[K, V]
}

// call is one caller who waits.
type call[K, V any] struct {
	ctx  context.Context
	key  K
	done chan struct{}
	v    V
	err  error
}

// New returns a Gatherer that asks by ask.
func New[K, V any](ask Ask[K, V], o Options) *Gatherer[K, V] {
	if o.Lanes <= 0 {
		o.Lanes = 2
	}
	if o.Max <= 0 {
		o.Max = 128
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	return &Gatherer[K, V]{ask: ask, o: o}
}

// Do returns the answer for key, or ctx's error when that ends first.
func (g *Gatherer[K, V]) Do(ctx context.Context, key K) (V, error) {
	g.mu.Lock()
	if g.busy < g.o.Lanes {
		g.busy++
		g.mu.Unlock()
		// One who asks again and again, of a source that answers without a wait,
		// would keep the lane and the processor for himself: hence the yield.
		defer func() {
			runtime.Gosched()
			g.next()
		}()
		return g.one(ctx, key)
	}
	c := &call[K, V]{ctx: ctx, key: key, done: make(chan struct{})}
	g.waiting = append(g.waiting, c)
	g.mu.Unlock()
	select {
	case <-c.done:
		return c.v, c.err
	case <-ctx.Done():
		var zero V
		return zero, ctx.Err()
	}
}

// next gives a lane that fell free to those who wait, or up.
func (g *Gatherer[K, V]) next() {
	g.mu.Lock()
	batch := g.take()
	if len(batch) == 0 {
		g.busy--
	}
	g.mu.Unlock()
	if len(batch) > 0 {
		go g.run(batch)
	}
}

// take removes a batch from those who wait, without those who gave up. g.mu is
// held.
func (g *Gatherer[K, V]) take() []*call[K, V] {
	var batch []*call[K, V]
	n := 0
	for _, c := range g.waiting {
		if len(batch) == g.o.Max {
			break
		}
		n++
		if c.ctx.Err() == nil {
			batch = append(batch, c)
		}
	}
	g.waiting = g.waiting[n:]
	if len(g.waiting) == 0 {
		g.waiting = nil // lets go of the calls behind it
	}
	return batch
}

// run answers batches until nobody waits.
func (g *Gatherer[K, V]) run(batch []*call[K, V]) {
	for len(batch) > 0 {
		g.answer(batch)
		g.mu.Lock()
		if batch = g.take(); len(batch) == 0 {
			g.busy--
		}
		g.mu.Unlock()
	}
}

func (g *Gatherer[K, V]) answer(batch []*call[K, V]) {
	keys := make([]K, len(batch))
	for i, c := range batch {
		keys[i] = c.key
	}
	ctx, cancel := g.context(batch)
	defer cancel()
	values, err := g.ask(ctx, keys)
	if err == nil && len(values) != len(keys) {
		err = fmt.Errorf("%d answers to %d questions", len(values), len(keys))
	}
	for i, c := range batch {
		switch {
		case err == nil:
			c.v = values[i]
		case len(batch) > 1 && errors.Is(err, ErrSplit):
			c.v, c.err = g.one(c.ctx, c.key)
		default:
			c.err = err
		}
		close(c.done)
	}
}

// context lives as long as the most patient caller: one who gives up must not
// take the others with him.
func (g *Gatherer[K, V]) context(batch []*call[K, V]) (context.Context, context.CancelFunc) {
	var latest time.Time
	for _, c := range batch {
		at, ok := c.ctx.Deadline()
		if !ok {
			at = time.Now().Add(g.o.Timeout)
		}
		if at.After(latest) {
			latest = at
		}
	}
	return context.WithDeadline(context.WithoutCancel(batch[0].ctx), latest)
}

func (g *Gatherer[K, V]) one(ctx context.Context, key K) (V, error) {
	values, err := g.ask(ctx, []K{key})
	if err == nil && len(values) != 1 {
		err = fmt.Errorf("%d answers to one question", len(values))
	}
	if err != nil {
		var zero V
		return zero, err
	}
	return values[0], nil
}
