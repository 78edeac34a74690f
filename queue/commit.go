package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tabard/internal/rpc"
)

// Bounds of one transaction.
const (
	groupChanges = 1000
	groupBytes   = 16 << 20
)

// ErrClosed is the answer of a queue that has been closed.
var ErrClosed = errors.New("queue is closed")

// committer is the one goroutine that writes to the store. Whatever waits while
// a transaction runs goes into the next one together; a lone change goes at
// once.
type committer struct {
	store  Store
	stored func(*Change) // called for each change that is durable

	mu      sync.Mutex
	waiting []*commit
	asides  []*aside
	closed  bool

	wake chan struct{}
	done chan struct{}

	tidied time.Time // when the store was tidied last
	untidy bool      // something was written since, or there is more to do
}

// tidier is a Store that has something to do when nobody waits for it. One call does
// a little, and reports whether there is more. It is called like Apply.
type tidier interface {
	Tidy(ctx context.Context) (more bool, err error)
}

// tidyPause is at least between two looks at a store that is tidy.
const tidyPause = time.Second

// commit is a change that waits to become durable.
type commit struct {
	change *Change
	bytes  int
	since  time.Time
	result chan error
}

// aside is what happens between two transactions.
type aside struct {
	do     func() error
	result chan error
}

func newCommitter(s Store, stored func(*Change)) *committer {
	c := &committer{store: s, stored: stored, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go c.run()
	return c
}

// do returns once change is durable, or an error says that it is not. The end
// of ctx takes back a change only before its transaction has begun.
func (c *committer) do(ctx context.Context, change *Change) error {
	w := &commit{change: change, bytes: change.Bytes(), since: time.Now(), result: make(chan error, 1)}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.waiting = append(c.waiting, w)
	c.mu.Unlock()
	c.poke()
	select {
	case err := <-w.result:
		return err
	case <-ctx.Done():
		if c.withdraw(w) {
			return ctx.Err()
		}
		return <-w.result
	}
}

// between calls f between two transactions: every change is either durable and told to
// stored before, or not begun. f must not take long.
func (c *committer) between(f func() error) error {
	a := &aside{do: f, result: make(chan error, 1)}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.asides = append(c.asides, a)
	c.mu.Unlock()
	c.poke()
	return <-a.result
}

// doAsides calls what waits to be called between transactions.
func (c *committer) doAsides() {
	c.mu.Lock()
	asides := c.asides
	c.asides = nil
	c.mu.Unlock()
	for _, a := range asides {
		a.result <- a.do()
	}
}

// Takes reports whether the change is of new mail, rather than of what becomes of mail
// that is there.
func (c *Change) Takes() bool {
	return len(c.Insert)+len(c.Attach) > 0 && len(c.Remove) == 0 || len(c.Recode) > 0
}

// Bytes is the size of the bodies that the change brings into the database.
func (c *Change) Bytes() int {
	n := 0
	for i := range c.Insert {
		n += len(c.Insert[i].Body)
	}
	for i := range c.Recode {
		n += len(c.Recode[i].Body)
	}
	return n
}

func (c *committer) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) withdraw(w *commit) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.waiting, w)
	if i < 0 {
		return false
	}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	return true
}

// close waits for everything that was accepted.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.poke()
	<-c.done
}

func (c *committer) run() {
	defer close(c.done)
	for {
		c.doAsides()
		group, closed := c.group()
		if len(group) > 0 {
			c.commit(group)
			continue
		}
		if closed {
			c.doAsides() // the last ones: none comes after closed
			return
		}
		c.rest()
	}
}

// rest waits for changes, and has the store tidied meanwhile.
func (c *committer) rest() {
	t, ok := c.store.(tidier)
	if !ok || !c.untidy {
		<-c.wake
		return
	}
	timer := time.NewTimer(time.Until(c.tidied.Add(tidyPause)))
	defer timer.Stop()
	select {
	case <-c.wake:
		return
	case <-timer.C:
	}
	more, err := t.Tidy(context.Background())
	if c.untidy = more && err == nil; !c.untidy { // an error shows again when it matters
		c.tidied = time.Now()
	}
}

// group takes what waits, up to the bounds of a transaction.
func (c *committer) group() (group []*commit, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := 0, 0
	for n < len(c.waiting) && n < groupChanges && (n == 0 || bytes+c.waiting[n].bytes <= groupBytes) {
		bytes += c.waiting[n].bytes
		n++
	}
	group = c.waiting[:n:n]
	if c.waiting = c.waiting[n:]; len(c.waiting) == 0 {
		c.waiting = nil
	}
	return group, c.closed
}

func (c *committer) commit(group []*commit) {
	c.untidy = true
	changes := make([]*Change, len(group))
	began := time.Now()
	for i, w := range group {
		changes[i] = w.change
		w.change.Waited = began.Sub(w.since)
	}
	err := c.apply(changes)
	for _, w := range group {
		w.change.Took = time.Since(began)
	}
	if errors.Is(err, ErrConflict) && len(group) > 1 {
		// One of them is at fault: the others must not pay for it.
		for _, w := range group {
			w.result <- c.apply([]*Change{w.change})
		}
		return
	}
	if errors.Is(err, rpc.ErrNoSpace) && len(group) > 1 {
		c.commitApart(group)
		return
	}
	for _, w := range group {
		w.result <- err
	}
}

// apply makes changes durable together.
func (c *committer) apply(changes []*Change) error {
	err := c.store.Apply(context.Background(), changes)
	if err == nil {
		for _, change := range changes {
			c.stored(change)
		}
	}
	return err
}

// commitApart is for a full disk: what takes no mail may still fit, and what only
// removes makes room. It must not starve behind what cannot be stored.
func (c *committer) commitApart(group []*commit) {
	for rank := range takesMail + 1 {
		var changes []*Change
		for _, w := range group {
			if w.change.rank() == rank {
				changes = append(changes, w.change)
			}
		}
		if len(changes) == 0 {
			continue
		}
		err := c.apply(changes)
		for _, w := range group {
			if w.change.rank() == rank {
				w.result <- err
			}
		}
	}
}

// The order of changes on a full disk.
const (
	makesRoom = iota
	isSmall
	takesMail
)

func (c *Change) rank() int {
	switch {
	case c.Takes():
		return takesMail
	case len(c.Remove) > 0 && len(c.Insert)+len(c.Update)+len(c.Attach) == 0:
		return makesRoom
	}
	return isSmall
}
