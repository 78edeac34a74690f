package mta

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// idlers keeps sessions that have nothing to do, for a short time, for the next
// message of the same pool. It keeps a bounded number: where every message
// goes somewhere else, they are of no use, and each has a socket and buffers.
type idlers struct {
	most   int
	mu     sync.Mutex
	closed bool
	byKey  map[string][]*session
	order  *list.List               // of *session, the one that came first in front
	news   map[string]chan struct{} // closed when a session of a pool is put, or has ended
	ending sync.WaitGroup
}

func newIdlers(most int) *idlers {
	return &idlers{most: most, byKey: make(map[string][]*session), order: list.New(), news: make(map[string]chan struct{})}
}

// list returns the sessions of a pool, the one that was used last at the
// end. Whoever wants one has to claim it.
func (p *idlers) list(key string) []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.byKey[key])
}

// claim takes a session; false means that somebody else has it, or that it ended.
func (p *idlers) claim(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drop(s)
}

// put keeps a session, or ends it if there is no more to come. One too many ends
// the one that was kept for longest, without waiting for that.
func (p *idlers) put(s *session) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		s.quit("quit")
		return
	}
	s.timer = time.AfterFunc(s.dest.limits.KeepAlive, func() { p.expire(s) })
	p.byKey[s.dest.pool] = append(p.byKey[s.dest.pool], s)
	s.place = p.order.PushBack(s)
	p.tell(s.dest.pool)
	if p.order.Len() > p.most {
		oldest := p.order.Front().Value.(*session)
		p.drop(oldest)
		p.end(oldest)
	}
	p.mu.Unlock()
}

// watch returns a channel that is closed when the next session of a pool is
// put, or has ended.
func (p *idlers) watch(key string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.news[key]
	if c == nil {
		c = make(chan struct{})
		p.news[key] = c
	}
	return c
}

// wake tells those who watch a pool.
func (p *idlers) wake(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell(key)
}

func (p *idlers) tell(key string) {
	if c := p.news[key]; c != nil {
		close(c)
		delete(p.news, key)
	}
}

// end says goodbye without making the caller wait for the answer.
func (p *idlers) end(s *session) { p.ending.Go(func() { s.quit("quit") }) }

// evictPatience is how long a server may take to answer QUIT when somebody waits
// for the place. Its connection is there until then, and counts.
const evictPatience = time.Second

func (p *idlers) expire(s *session) {
	p.mu.Lock()
	found := p.drop(s)
	if found {
		p.ending.Add(1)
	}
	p.mu.Unlock()
	if found {
		s.quit("quit")
		p.ending.Done()
	}
}

// evict ends one session under a limit, to make room for another destination. The
// caller, who waits for the place, may have that of a third one before.
func (p *idlers) evict(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.find(key); s != nil && !p.closed {
		p.drop(s)
		p.ending.Go(func() { s.leave("quit", evictPatience) })
	}
}

func (p *idlers) find(key string) *session {
	for _, list := range p.byKey {
		for _, s := range list {
			if slices.Contains(s.spot.keys, key) {
				return s
			}
		}
	}
	return nil
}

// drop takes a session out of the lists. The caller holds the lock.
func (p *idlers) drop(s *session) bool {
	list := p.byKey[s.dest.pool]
	for i, have := range list {
		if have != s {
			continue
		}
		s.timer.Stop()
		p.order.Remove(s.place)
		if list = append(list[:i], list[i+1:]...); len(list) == 0 {
			delete(p.byKey, s.dest.pool)
		} else {
			p.byKey[s.dest.pool] = list
		}
		return true
	}
	return false
}

// close ends every session, and those that are put later.
func (p *idlers) close() {
	p.mu.Lock()
	p.closed = true
	var all []*session
	for _, list := range p.byKey {
		all = append(all, list...)
	}
	for _, s := range all {
		p.drop(s)
	}
	p.mu.Unlock()
	for _, s := range all {
		p.end(s)
	}
	p.ending.Wait()
}
