package queue

import (
	"math/rand/v2"
	"sync"
	"time"
)

// IDSource makes message ids that increase, so that no two of one source are
// the same however many are made in one millisecond. The zero value is ready,
// and safe for concurrent use.
type IDSource struct {
	mu   sync.Mutex
	last MessageID
}

const randomBits = 20

// FirstID is where the ids of messages begin that arrive at t or later.
func FirstID(t time.Time) MessageID { return MessageID(t.UnixMilli() << randomBits) }

// Time is when a message with this id arrived, if an IDSource made it.
func (id MessageID) Time() time.Time { return time.UnixMilli(int64(id) >> randomBits) }

// Next returns a new id for a message that arrives now.
func (s *IDSource) Next() MessageID {
	id := MessageID(time.Now().UnixMilli()<<randomBits | rand.Int64N(1<<randomBits))
	s.mu.Lock()
	defer s.mu.Unlock()
	if id <= s.last {
		// Random steps, so that ids of several sources do not run in parallel.
		id = s.last + 1 + MessageID(rand.Int64N(1<<8))
	}
	s.last = id
	return id
}
