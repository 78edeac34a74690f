package lookup

import (
	"container/list"
	"sync"
)

// lru is a map of bounded size that forgets what was not used for longest. It
// is safe for concurrent use.
type lru[K comparable, V any] struct {
	mu      sync.Mutex
	max     int
	order   *list.List // of entry[K, V], most recent first
	byKey   map[K]*list.Element
	evicted func(K, V) // called with mu held; may be nil
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	return &lru[K, V]{max: max, order: list.New(), byKey: make(map[K]*list.Element)}
}

// get returns the value of key and marks it as used.
func (l *lru[K, V]) get(key K) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byKey[key]
	if !ok {
		var none V
		return none, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

// put sets the value of key.
func (l *lru[K, V]) put(key K, value V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[key]; ok {
		e.Value.(*entry[K, V]).value = value
		l.order.MoveToFront(e)
		return
	}
	l.insert(key, value)
}

// getOrPut returns the value of key, which is value when there was none.
func (l *lru[K, V]) getOrPut(key K, value V) V {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[key]; ok {
		l.order.MoveToFront(e)
		return e.Value.(*entry[K, V]).value
	}
	l.insert(key, value)
	return value
}

func (l *lru[K, V]) insert(key K, value V) {
	l.byKey[key] = l.order.PushFront(&entry[K, V]{key, value})
	if l.order.Len() > l.max {
		l.drop(l.order.Back())
	}
}

// remove forgets key.
func (l *lru[K, V]) remove(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[key]; ok {
		l.drop(e)
	}
}

func (l *lru[K, V]) drop(e *list.Element) {
	old := l.order.Remove(e).(*entry[K, V])
	delete(l.byKey, old.key)
	if l.evicted != nil {
		l.evicted(old.key, old.value)
	}
}

// all returns the values, most recently used first.
func (l *lru[K, V]) all() []V {
	l.mu.Lock()
	defer l.mu.Unlock()
	values := make([]V, 0, l.order.Len())
	for e := l.order.Front(); e != nil; e = e.Next() {
		values = append(values, e.Value.(*entry[K, V]).value)
	}
	return values
}
