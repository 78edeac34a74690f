package mta

import (
	"context"
	"slices"
	"sync"
	"time"
)

// limiter gives out places under keys, first come first served, with a bounded
// line of those who wait under each; and, where a delay is asked for, one after
// the other.
type limiter struct {
	now  func() time.Time
	line int
	mu   sync.Mutex
	at   map[string]*room
}

type room struct {
	places int // as of the last who asked
	used   int
	line   []chan struct{}
	next   time.Time // nobody begins before
}

// bound is one limit that a connection is under.
type bound struct {
	key    string
	places int           // 0: any number
	delay  time.Duration // between the beginnings of two
}

// limiterRooms is how many rooms there are before empty ones are cleared away
// that are kept for their delay only.
const limiterRooms = 10000

func newLimiter(line int) *limiter {
	return &limiter{now: time.Now, line: line, at: make(map[string]*room)}
}

// acquire takes a place, waiting for one if it must: until ctx ends, or not at
// all (errBusy) when the line is full or the turn would come after ctx's deadline.
// release gives it back. Whoever has to wait is in the line when he calls waiting.
func (l *limiter) acquire(ctx context.Context, b bound, waiting func()) error {
	l.mu.Lock()
	r := l.room(b)
	if r.places > 0 && r.used >= r.places {
		if len(r.line) >= l.line {
			l.mu.Unlock()
			return errBusy
		}
		turn := make(chan struct{})
		r.line = append(r.line, turn)
		l.mu.Unlock()
		waiting()
		select {
		case <-turn:
		case <-ctx.Done():
			l.giveUp(b.key, r, turn)
			return ctx.Err()
		}
	} else {
		r.used++
		l.mu.Unlock()
	}
	if b.delay <= 0 {
		return nil
	}
	return l.await(ctx, r, b)
}

// room returns the room of a key. The caller holds the lock.
func (l *limiter) room(b bound) *room {
	r := l.at[b.key]
	if r == nil {
		if len(l.at) >= limiterRooms {
			l.clear()
		}
		r = &room{}
		l.at[b.key] = r
	}
	r.places = b.places
	return r
}

// await waits for the turn of somebody who has a place.
func (l *limiter) await(ctx context.Context, r *room, b bound) error {
	l.mu.Lock()
	now := l.now()
	start := now
	if r.next.After(now) {
		start = r.next
	}
	deadline, ok := ctx.Deadline()
	late := ok && start.After(deadline)
	if !late {
		r.next = start.Add(b.delay)
	}
	l.mu.Unlock()
	if !late {
		pause(ctx, start.Sub(now))
	}
	if late || ctx.Err() != nil {
		l.release(b.key, 0)
		return errBusy
	}
	return nil
}

// giveUp leaves the line, or passes on the place that came at the last moment.
func (l *limiter) giveUp(key string, r *room, turn chan struct{}) {
	l.mu.Lock()
	if i := slices.Index(r.line, turn); i >= 0 {
		r.line = slices.Delete(r.line, i, i+1)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	l.release(key, 0)
}

// wanted reports whether somebody waits for a place under one of the keys.
func (l *limiter) wanted(keys []string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(keys, func(key string) bool {
		r := l.at[key]
		return r != nil && len(r.line) > 0
	})
}

// release gives a place back. Nobody begins there for a pause.
func (l *limiter) release(key string, rest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.at[key]
	if next := l.now().Add(rest); rest > 0 && next.After(r.next) {
		r.next = next
	}
	if r.used--; len(r.line) > 0 && (r.places == 0 || r.used < r.places) {
		r.used++
		close(r.line[0])
		r.line = r.line[1:]
	}
	if r.idle(l.now()) {
		delete(l.at, key)
	}
}

func (r *room) idle(now time.Time) bool { return r.used == 0 && !r.next.After(now) }

// clear drops rooms that are of no use any more. The caller holds the lock.
func (l *limiter) clear() {
	now := l.now()
	for key, r := range l.at {
		if r.idle(now) {
			delete(l.at, key)
		}
	}
}

// spot is the place that a connection has under all its limits.
type spot struct {
	limiter *limiter
	keys    []string
	rests   string        // the key under which the next waits after the end,
	rest    time.Duration // so long
}

// end gives everything back.
func (s *spot) end() {
	for _, key := range s.keys {
		rest := time.Duration(0)
		if key == s.rests {
			rest = s.rest
		}
		s.limiter.release(key, rest)
	}
}

// abandon gives everything back as if it had never been.
func (s *spot) abandon() {
	s.rest = 0
	s.end()
}

// bounds lists the limits of a connection to an address. All take them in this
// order, so that nobody waits for somebody who waits for him.
func (d *destination) bounds(addr string) []bound {
	l := d.limits
	src := d.toward(addr).route.Source
	all := []bound{
		{"relay " + d.key, 0, l.DelayRelay},
		{"connector " + src + " " + d.key, l.PerConnector, l.DelayConnector},
		{"domain " + d.name, l.PerDomain, l.DelayDomain},
		{"source " + src, l.PerSource, l.DelaySource},
		{"host " + addr, l.PerHost, l.DelayHost},
		{d.routeKey(addr), l.PerRoute, l.delayRoute()},
	}
	return slices.DeleteFunc(all, func(b bound) bool { return b.places == 0 && b.delay == 0 })
}

// delayRoute is DelayRoute, or the least there is where what is left of the rest
// after an earlier connection must be waited for.
func (l *Limits) delayRoute() time.Duration {
	if l.Reconnect > 0 && l.DelayRoute == 0 {
		return time.Nanosecond
	}
	return l.DelayRoute
}

func (d *destination) routeKey(addr string) string {
	return "route " + d.toward(addr).route.Source + " " + addr
}

// place waits for a place under every limit that a connection is under, but not
// longer than a connection may take.
func (m *MTA) place(ctx context.Context, d *destination, addr string) (*spot, *refusal) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Connect)
	defer cancel()
	s := &spot{limiter: m.conns, rests: d.routeKey(addr), rest: d.limits.Reconnect}
	for _, b := range d.bounds(addr) {
		if err := m.conns.acquire(ctx, b, func() { m.idle.evict(b.key) }); err != nil {
			s.abandon()
			return nil, &refusal{
				fault: faultConnect, err: errCrowded(addr), until: time.Now().Add(penaltyUnit), silent: true, crowded: true,
			}
		}
		s.keys = append(s.keys, b.key)
	}
	return s, nil
}
