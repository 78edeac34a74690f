package dns

import (
	"container/list"
	"sync"
	"time"
)

// cache remembers answers for their time to live, at most max of them; the one
// not used for longest goes first.
type cache struct {
	mu    sync.Mutex
	max   int
	byKey map[question]*list.Element
	used  *list.List // of *entry, most recently used first
}

type entry struct {
	key     question
	ans     *answer
	expires time.Time
}

func newCache(max int) *cache {
	return &cache{max: max, byKey: make(map[question]*list.Element), used: list.New()}
}

// get returns an answer and how much longer it is believed.
func (c *cache) get(q question, now time.Time) (*answer, time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[q]
	if !ok {
		return nil, 0, false
	}
	e := el.Value.(*entry)
	if !now.Before(e.expires) {
		c.remove(el)
		return nil, 0, false
	}
	c.used.MoveToFront(el)
	return e.ans, e.expires.Sub(now), true
}

func (c *cache) put(q question, ans *answer, now time.Time) {
	if ans.ttl <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byKey[q]; ok {
		c.remove(el)
	}
	c.byKey[q] = c.used.PushFront(&entry{key: q, ans: ans, expires: now.Add(ans.ttl)})
	if len(c.byKey) > c.max {
		c.remove(c.used.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	c.used.Remove(el)
	delete(c.byKey, el.Value.(*entry).key)
}
