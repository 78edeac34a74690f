// Package cache keeps the answers of a table's backend in memory for as long as
// they are true.
//
// A backend that tells of changes (table.Watcher) is believed: an answer stays
// until its key, its service or the whole table changed. While nobody tells,
// because the backend cannot or because its notifications were lost, an answer
// lives for a short time only. Answers that a change may have touched are never
// given out as current, not even those that were on their way when it came.
//
// When the backend cannot be asked, an answer that was true when it was last
// known goes on being given for a while, and marked so (see Origin): a server
// keeps its mail flowing through a database's restart. An answer whose own key
// is known to have changed is gone for good.
package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"tabard/table"
)

// Defaults of Options.
const (
	// DefaultTTL is how long an answer is believed while nobody tells of changes.
	DefaultTTL = 30 * time.Second
	// DefaultNegativeTTL is the same for "not found": a mailbox that was just
	// made must not be refused for longer.
	DefaultNegativeTTL = 5 * time.Second
	// DefaultStaleTTL is how long an answer is given while the backend is down.
	DefaultStaleTTL = time.Hour
	// DefaultSize bounds the answers of one table, in bytes.
	DefaultSize = 64 << 20
)

const (
	// staleWait is how long a caller waits for the truth when there is an answer
	// that was true a while ago.
	staleWait = 2 * time.Second
	// retryAfter is how long a backend that failed is left alone by callers who
	// have such an answer.
	retryAfter = time.Second
)

// Options of a Cache. The zero value of each is its default.
type Options struct {
	Name     string        // of the table, for the log
	TTL      time.Duration // given: no answer is believed for longer, changes told or not
	StaleTTL time.Duration // negative: stale answers are never given
	Size     int64         // bytes
	Timeout  time.Duration // of one question; 0: table.DefaultTimeout
	Log      *slog.Logger  // nil: nothing is logged
	Clock    func() time.Time
}

// key is one question.
type key struct {
	op      op
	service table.Service
	text    string
}

type op uint8

const (
	opLookup op = iota + 1
	opCheck
	opFetch
)

// answer is what a backend said.
type answer struct {
	row   table.Row
	rows  []table.Row
	found bool
}

// positive reports whether there is something in the answer.
func (a answer) positive() bool { return a.found || len(a.rows) > 0 }

// entry is an answer with what it takes to tell whether it is still true.
type entry struct {
	answer
	gen generation
	at  time.Time // just before it was asked
}

// generation counts the changes that concern whole services.
type generation struct{ table, service uint64 }

// Cache is a table.Backend in front of another. It is safe for concurrent use.
type Cache struct {
	backend table.Backend
	o       Options
	entries *otter.Cache[key, *entry]

	all      atomic.Uint64 // changes of everything
	services []atomic.Uint64
	pushed   atomic.Bool // changes are being told
	watch    watch

	mu      sync.Mutex
	flights map[key]*flight

	failures atomic.Int64 // in a row
	down     atomic.Int64 // until when the backend counts as down, as UnixNano
	stats    counters
	journal  journal
	never    chan struct{} // closed when no changes will ever be told
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

var (
	_ table.Backend       = (*Cache)(nil)
	_ table.Pinger        = (*Cache)(nil)
	_ table.Validator     = (*Cache)(nil)
	_ table.Authenticator = (*Cache)(nil)
)

// New puts a cache in front of b and follows its changes until Close, which
// closes b too.
func New(b table.Backend, o Options) (*Cache, error) {
	o.setDefaults()
	c := &Cache{
		backend: b, o: o, flights: make(map[key]*flight),
		services: make([]atomic.Uint64, len(table.Services())+1), never: make(chan struct{}),
	}
	var err error
	c.entries, err = otter.New(&otter.Options[key, *entry]{MaximumWeight: uint64(o.Size), Weigher: weigh})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	if w, ok := b.(table.Watcher); ok {
		c.watch.set(WatchPending, o.Clock(), nil)
		c.done.Go(func() { c.follow(ctx, w) })
	} else {
		c.watch.set(WatchNever, o.Clock(), nil)
		close(c.never)
	}
	return c, nil
}

func (o *Options) setDefaults() {
	if o.StaleTTL == 0 {
		o.StaleTTL = DefaultStaleTTL
	}
	if o.Size <= 0 {
		o.Size = DefaultSize
	}
	if o.Timeout <= 0 {
		o.Timeout = table.DefaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
}

// weigh estimates the memory of an entry, in bytes.
func weigh(k key, e *entry) uint32 {
	const fixed = 256 // key, entry, headers, and the cache's own node
	n := fixed + len(k.text)
	for _, col := range e.row {
		n += 16 + len(col)
	}
	for _, row := range e.rows {
		n += 24
		for _, col := range row {
			n += 16 + len(col)
		}
	}
	return uint32(min(n, 1<<31))
}

// Lookup implements table.Backend.
func (c *Cache) Lookup(ctx context.Context, s table.Service, text string) (table.Row, error) {
	a, err := c.get(ctx, key{opLookup, s, text})
	if err != nil {
		return nil, err
	}
	if !a.found {
		return nil, table.ErrNotFound
	}
	return a.row, nil
}

// Check implements table.Backend.
func (c *Cache) Check(ctx context.Context, s table.Service, text string) (bool, error) {
	a, err := c.get(ctx, key{opCheck, s, text})
	return a.found, err
}

// Fetch implements table.Backend.
func (c *Cache) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	a, err := c.get(ctx, key{op: opFetch, service: s})
	return a.rows, err
}

// Ping implements table.Pinger.
func (c *Cache) Ping(ctx context.Context) error {
	if p, ok := c.backend.(table.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// Validate implements table.Validator.
func (c *Cache) Validate(ctx context.Context, s table.Service) error {
	if v, ok := c.backend.(table.Validator); ok {
		return v.Validate(ctx, s)
	}
	return nil
}

// Authenticates implements table.Authenticator. Passwords are never kept.
func (c *Cache) Authenticates(ctx context.Context) (bool, error) {
	if a, ok := c.backend.(table.Authenticator); ok {
		return a.Authenticates(ctx)
	}
	return false, nil
}

// Authenticate implements table.Authenticator.
func (c *Cache) Authenticate(ctx context.Context, user, password string) (bool, error) {
	if a, ok := c.backend.(table.Authenticator); ok {
		return a.Authenticate(ctx, user, password)
	}
	return false, table.ErrUnsupported
}

// Close ends the following of changes, and closes the backend.
func (c *Cache) Close() error {
	c.cancel()
	err := c.backend.Close()
	c.done.Wait()
	c.entries.StopAllGoroutines()
	return err
}

// get answers from memory, or asks.
func (c *Cache) get(ctx context.Context, k key) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, err
	}
	origin := OriginOf(ctx)
	e, known := c.entries.GetIfPresent(k)
	if known && !origin.fresh() && c.current(k, e) {
		c.stats.hits.Add(1)
		origin.hit()
		return e.answer, nil
	}
	stale := known && !origin.fresh() && c.o.StaleTTL > 0 && c.o.Clock().Sub(e.at) < c.o.StaleTTL
	if stale && c.isDown() {
		return c.giveStale(e, origin), nil
	}
	c.stats.misses.Add(1)
	a, err := c.ask(ctx, k, stale)
	switch {
	case err == nil:
		origin.miss()
		return a, nil
	case stale && givesStale(ctx, err):
		// What was known may have been dropped by a change meanwhile.
		if e, known = c.entries.GetIfPresent(k); known {
			return c.giveStale(e, origin), nil
		}
	}
	return answer{}, err
}

// givesStale reports whether an error is the backend's fault, not the
// question's or the caller's.
func givesStale(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, table.ErrUnsupported) && !errors.Is(err, table.ErrKey)
}

func (c *Cache) giveStale(e *entry, origin *Origin) answer {
	c.stats.stale.Add(1)
	origin.old(e.positive())
	return e.answer
}

// current reports whether an answer is still true.
func (c *Cache) current(k key, e *entry) bool {
	return e.gen == c.generation(k.service) && !c.expired(e)
}

// generation is what an answer asked for now belongs to.
func (c *Cache) generation(s table.Service) generation {
	return generation{c.all.Load(), c.services[s].Load()}
}

func (c *Cache) expired(e *entry) bool {
	ttl := c.o.TTL
	if c.pushed.Load() {
		if ttl == 0 {
			return false
		}
	} else {
		if ttl == 0 {
			ttl = DefaultTTL
		}
		if !e.positive() {
			ttl = min(ttl, DefaultNegativeTTL)
		}
	}
	return c.o.Clock().Sub(e.at) >= ttl
}

func (c *Cache) isDown() bool { return c.o.Clock().UnixNano() < c.down.Load() }
