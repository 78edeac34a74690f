package mta

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"
)

// How a lane's limit moves: it begins at laneFirst; each message that the
// servers answered adds one, or after the first trouble one part in the limit;
// trouble halves it. A lane that nobody used for laneForget is forgotten.
const (
	laneFirst   = 5
	laneForget  = 10 * time.Minute
	laneKnown   = time.Minute // how long a destination's set of servers is believed
	laneEntries = 20000
)

// lanes bound how many messages are on their way at once to each set of servers.
// Destinations whose mail goes to the same servers share a lane, whatever else
// differs between them. The limit of a lane adapts to what the servers bear.
type lanes struct {
	now   func() time.Time
	mu    sync.Mutex
	byKey map[string]*lane
	known map[string]knownLane  // by destination
	up    map[string][]*session // that are open, by pool
}

type knownLane struct {
	*lane
	until time.Time
}

// lane is the way to one set of servers. Its fields need lanes.mu.
type lane struct {
	key     string
	servers string // their names, in bounds
	laneSize
	limit float64
	used  int
	line  []chan struct{}
	crowd crowd

	jobs     map[string]int // in the lane or its line, by destination
	sessions int            // open ones
	shrunk   time.Time      // when the limit last went down
	seen     time.Time
}

// laneSize is what a lane's limits allow.
type laneSize struct {
	most    int // what its limit never exceeds
	waiting int // how many may stand in its line
	resume  int // Limits.Resume
	release int // Limits.Release
}

// mood is what an attempt found out about the servers of a lane.
type mood uint8

const (
	unheard mood = iota // nothing
	fine                // they take mail, or refuse it for what it is
	trouble             // they are overloaded, refuse us for now, or broke off
	down                // no session could be opened
)

// ticket is one message's place in a lane.
type ticket struct {
	lane  *lane
	dest  string
	begun time.Time
}

func newLanes() *lanes {
	return &lanes{
		now: time.Now, byKey: make(map[string]*lane),
		known: make(map[string]knownLane), up: make(map[string][]*session),
	}
}

// lane returns the lane of a destination, for which it may have to ask DNS.
func (m *MTA) lane(ctx context.Context, d *destination) (*lane, *failure) {
	if l := m.lanes.find(d.key); l != nil {
		d.pool = l.key + " " + d.rest
		return l, nil
	}
	hosts, fail := m.hosts(ctx, d)
	if fail != nil {
		return nil, fail
	}
	names := make([]string, len(hosts))
	for i, h := range hosts {
		names[i] = h.server()
	}
	slices.Sort(names)
	names = slices.Compact(names)
	l := m.lanes.learn(d.key, strings.Join(names, " "), d.own, d.limits.lane(len(names)))
	d.pool = l.key + " " + d.rest
	return l, nil
}

// find returns what is known of a destination's lane, or nil.
func (s *lanes) find(dest string) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.known[dest]
	if !ok || s.now().After(k.until) {
		return nil
	}
	return k.lane
}

// learn notes which servers a destination's mail goes to. One with limits of its
// own has its own lane.
func (s *lanes) learn(dest, servers, own string, size laneSize) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.makeRoom(now)
	key := own + " " + servers
	if len(key) > maxServers {
		sum := sha256.Sum256([]byte(key))
		key = string(sum[:])
	}
	l := s.byKey[key]
	if l == nil {
		l = &lane{key: key, servers: shortServers(servers), limit: float64(min(laneFirst, size.most)), jobs: make(map[string]int), seen: now}
		s.byKey[key] = l
	}
	l.laneSize = size
	l.limit = min(l.limit, float64(size.most))
	s.known[dest] = knownLane{l, now.Add(laneKnown)}
	return l
}

// enter takes a place in a lane, waiting for one if it must: until ctx ends, or
// not at all (errBusy) when too many wait. leave gives it back.
func (s *lanes) enter(ctx context.Context, l *lane, dest string) (*ticket, error) {
	s.mu.Lock()
	l.jobs[dest]++
	if l.used < int(l.limit) {
		l.used++
		s.mu.Unlock()
		return &ticket{l, dest, s.now()}, nil
	}
	if !l.crowd.takes(len(l.line), l.laneSize) {
		s.gone(l, dest)
		s.mu.Unlock()
		return nil, errBusy
	}
	turn := make(chan struct{})
	l.line = append(l.line, turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return &ticket{l, dest, s.now()}, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(l.line, turn); i >= 0 {
		l.line = slices.Delete(l.line, i, i+1)
	} else { // the place came at the last moment
		l.used--
		l.admit()
	}
	s.gone(l, dest)
	return nil, ctx.Err()
}

// leave gives a place back, with what was found out.
func (s *lanes) leave(t *ticket, m mood) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := t.lane
	l.learn(t.begun, m, s.now())
	l.used--
	l.admit()
	s.gone(l, t.dest)
}

// learn moves the limit. Troubles that began at the same time count once.
func (l *lane) learn(begun time.Time, m mood, now time.Time) {
	switch {
	case m == fine && l.shrunk.IsZero():
		l.limit = min(l.limit+1, float64(l.most))
	case m == fine:
		l.limit = min(l.limit+1/l.limit, float64(l.most))
	case m == down:
		l.limit, l.shrunk = 1, now
	case m == trouble && !begun.Before(l.shrunk):
		l.limit, l.shrunk = max(1, float64(int(min(l.limit, float64(l.used))/2))), now
	}
}

// admit lets in who waits, as many as there are places.
func (l *lane) admit() {
	for len(l.line) > 0 && l.used < int(l.limit) {
		l.used++
		close(l.line[0])
		l.line = l.line[1:]
	}
}

// gone takes a job out of the count. The caller holds the lock.
func (s *lanes) gone(l *lane, dest string) {
	if l.jobs[dest]--; l.jobs[dest] <= 0 {
		delete(l.jobs, dest)
	}
	l.seen = s.now()
}

// window is how many jobs of a destination are of use at once: its part of the
// places, and a few more, so that none stands empty.
func (s *lanes) window(l *lane, dest string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	others := len(l.jobs)
	if l.jobs[dest] > 0 {
		others--
	}
	part := int(l.limit) / (others + 1)
	return max(1, part+part/4)
}

// opened notes a session and its lane. ended must follow once.
func (s *lanes) opened(sn *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up[sn.dest.pool] = append(s.up[sn.dest.pool], sn)
	if sn.lane = s.known[sn.dest.key].lane; sn.lane != nil {
		sn.lane.sessions++
	}
}

func (s *lanes) ended(sn *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pool := sn.dest.pool
	if s.up[pool] = slices.DeleteFunc(s.up[pool], func(one *session) bool { return one == sn }); len(s.up[pool]) == 0 {
		delete(s.up, pool)
	}
	if sn.lane != nil {
		sn.lane.sessions--
	}
}

// open returns the sessions of a pool, those in use included.
func (s *lanes) open(pool string) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.up[pool])
}

// strained notes that a destination's servers did not take a further session. begun
// is when it was tried.
func (s *lanes) strained(dest string, begun time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.known[dest].lane; l != nil {
		l.learn(begun, trouble, s.now())
	}
}

func (l *lane) empty() bool { return len(l.jobs) == 0 && l.sessions == 0 }

// makeRoom keeps the memory bounded. The caller holds the lock.
func (s *lanes) makeRoom(now time.Time) {
	if len(s.known) < laneEntries && len(s.byKey) < laneEntries {
		return
	}
	for dest, k := range s.known {
		if now.After(k.until) {
			delete(s.known, dest)
		}
	}
	for key, l := range s.byKey {
		if l.empty() && now.Sub(l.seen) > laneForget {
			delete(s.byKey, key)
		}
	}
	for dest := range s.known {
		if len(s.known) < laneEntries {
			break
		}
		delete(s.known, dest)
	}
	for key, l := range s.byKey {
		if len(s.byKey) < laneEntries {
			break
		}
		if l.empty() {
			delete(s.byKey, key)
		}
	}
}
