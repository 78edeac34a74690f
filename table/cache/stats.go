package cache

import "sync/atomic"

// counters count since the start.
type counters struct{ hits, misses, stale, errors atomic.Int64 }

// Stats is how a cache does.
type Stats struct {
	Entries int   // answers known, current or not
	Bytes   int64 // what they take, estimated
	Hits    int64 // questions answered from memory
	Misses  int64 // questions put to the backend
	Stale   int64 // questions answered from memory because the backend could not be asked
	Errors  int64 // questions that the backend failed
	Pushed  bool  // changes are being told
	Down    bool  // the last question to the backend failed
}

// Stats returns how the cache does now.
func (c *Cache) Stats() Stats {
	return Stats{
		Entries: c.entries.EstimatedSize(), Bytes: int64(c.entries.WeightedSize()),
		Hits: c.stats.hits.Load(), Misses: c.stats.misses.Load(), Stale: c.stats.stale.Load(), Errors: c.stats.errors.Load(),
		Pushed: c.pushed.Load(), Down: c.down.Load() != 0,
	}
}
