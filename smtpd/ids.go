package smtpd

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"tabard/queue"
)

const idRandomBits = 20

// idSource makes message ids: 44 bits of milliseconds, 20 random bits. Within a
// millisecond it counts on from a random start, so that one process never gives
// an id twice.
type idSource struct {
	mu   sync.Mutex
	last int64 // the whole id given last
}

func (s *idSource) next(now time.Time) queue.MessageID {
	id := now.UnixMilli()<<idRandomBits | rand.Int64N(1<<idRandomBits)
	s.mu.Lock()
	defer s.mu.Unlock()
	if id>>idRandomBits <= s.last>>idRandomBits {
		id = s.last + 1
	}
	s.last = id
	return queue.MessageID(id)
}

// sessionID returns 16 hexadecimal digits.
func sessionID() string {
	return strconv.FormatUint(rand.Uint64()|1<<63, 16)
}
