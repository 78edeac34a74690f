package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

// counters count since the start.
type counters struct{ hits, misses, stale, errors atomic.Int64 }

// Stats is how a cache does. Counts are since it was made.
type Stats struct {
	Entries int     `json:"entries"`  // answers known, current or not
	Bytes   int64   `json:"bytes"`    // what they take, estimated
	Limit   int64   `json:"limit"`    // what they may take, in bytes
	Hits    int64   `json:"hits"`     // questions answered from memory
	Misses  int64   `json:"misses"`   // questions that the backend had to answer
	Stale   int64   `json:"stale"`    // questions answered from memory because the backend could not be asked
	HitRate float64 `json:"hit_rate"` // of all questions, those answered from memory: 0 to 1
	Errors  int64   `json:"errors"`   // questions that the backend failed
	Down    bool    `json:"down"`     // the backend counts as down: what is known goes on being used
	Watch   Watch   `json:"watch"`    // whether it learns of changes
}

// hitRate is the part of all questions that was answered from memory, from 0 to 1.
func (s Stats) hitRate() float64 {
	known := s.Hits + s.Stale
	if known == 0 {
		return 0
	}
	return float64(known) / float64(known+s.Misses)
}

// WatchState says whether a backend tells of changes.
type WatchState string

// The states of a watch.
const (
	WatchPending WatchState = "pending" // it never was in force yet
	WatchTold    WatchState = "told"    // in force: changes are being told
	WatchLost    WatchState = "lost"    // it was in force, and is tried again
	WatchNever   WatchState = "never"   // the backend does not tell
)

// Watch is how a cache learns of its backend's changes.
type Watch struct {
	State WatchState `json:"state"`
	Since time.Time  `json:"since"`           // of the state
	Error string     `json:"error,omitempty"` // why it is not in force, as of the last attempt
}

// watch is a Watch that is kept.
type watch struct {
	mu  sync.Mutex
	now Watch
}

func (w *watch) set(s WatchState, at time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = Watch{State: s, Since: at}
	if err != nil {
		w.now.Error = err.Error()
	}
}

// failed notes why another attempt failed; the state remains.
func (w *watch) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.now.Error = err.Error()
	}
}

func (w *watch) get() Watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Stats returns how the cache does now.
func (c *Cache) Stats() Stats {
	s := Stats{
		Entries: c.entries.EstimatedSize(), Bytes: int64(c.entries.WeightedSize()), Limit: c.o.Size,
		Hits: c.stats.hits.Load(), Misses: c.stats.misses.Load(), Stale: c.stats.stale.Load(), Errors: c.stats.errors.Load(),
		Down: c.down.Load() != 0, Watch: c.watch.get(),
	}
	s.HitRate = s.hitRate()
	return s
}
