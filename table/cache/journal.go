package cache

import (
	"context"
	"sync"
	"time"

	"tabard/table"
)

// journalLen is how many changes are remembered for those who watch.
const journalLen = 256

// Told is a change that the backend told.
type Told struct {
	Seq    uint64 // counts from 1; a gap means that some were forgotten
	At     time.Time
	Change table.Change
}

// journal remembers the last changes.
type journal struct {
	mu   sync.Mutex
	last []Told        // oldest first
	seq  uint64        // of the last one
	wake chan struct{} // closed by the next one; nil: nobody waits
}

func (j *journal) add(ch table.Change, at time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	if len(j.last) == journalLen {
		j.last = append(j.last[:0], j.last[1:]...)
	}
	j.last = append(j.last, Told{j.seq, at, ch})
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
}

// after returns what came after a number, or a channel to wait for more.
func (j *journal) after(seq uint64) ([]Told, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, t := range j.last {
		if t.Seq > seq {
			return append([]Told(nil), j.last[i:]...), nil
		}
	}
	if j.wake == nil {
		j.wake = make(chan struct{})
	}
	return nil, j.wake
}

// Changes waits for changes that the backend told after the one numbered after,
// and returns them, oldest first. The first of each watch is the zero Change: it
// is in force. A backend that never tells is table.ErrUnsupported.
func (c *Cache) Changes(ctx context.Context, after uint64) ([]Told, error) {
	for {
		told, wait := c.journal.after(after)
		if wait == nil {
			return told, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.never:
			return nil, table.ErrUnsupported
		}
	}
}

// LastChange is the number of the last change told; 0 before the first.
func (c *Cache) LastChange() uint64 {
	c.journal.mu.Lock()
	defer c.journal.mu.Unlock()
	return c.journal.seq
}
