package textlog

import "container/list"

// recent is a map of bounded weight, which lets go of what was not used for longest.
type recent[K comparable, V any] struct {
	max, weight int
	gone        func(V) // told of what is let go of; nil: nobody
	order       *list.List
	byKey       map[K]*list.Element
}

type held[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func newRecent[K comparable, V any](max int, gone func(V)) *recent[K, V] {
	return &recent[K, V]{max: max, gone: gone, order: list.New(), byKey: map[K]*list.Element{}}
}

// get returns the value of a key.
func (m *recent[K, V]) get(k K) (V, bool) {
	e, ok := m.byKey[k]
	if !ok {
		var none V
		return none, false
	}
	m.order.MoveToFront(e)
	return e.Value.(*held[K, V]).value, true
}

// put sets the value of a key. One that was there is gone.
func (m *recent[K, V]) put(k K, v V) {
	m.drop(k)
	m.byKey[k] = m.order.PushFront(&held[K, V]{k, v, 1})
	m.weight++
	m.trim()
}

// grow adds to the weight of a key that is there.
func (m *recent[K, V]) grow(k K) {
	if e, ok := m.byKey[k]; ok {
		e.Value.(*held[K, V]).weight++
		m.weight++
		m.trim()
	}
}

func (m *recent[K, V]) trim() {
	for m.weight > m.max && m.order.Len() > 0 {
		m.drop(m.order.Back().Value.(*held[K, V]).key)
	}
}

// drop lets go of a key.
func (m *recent[K, V]) drop(k K) {
	e, ok := m.byKey[k]
	if !ok {
		return
	}
	h := m.order.Remove(e).(*held[K, V])
	delete(m.byKey, k)
	m.weight -= h.weight
	if m.gone != nil {
		m.gone(h.value)
	}
}

// clear lets go of everything, what was used longest ago first.
func (m *recent[K, V]) clear() {
	for m.order.Len() > 0 {
		m.drop(m.order.Back().Value.(*held[K, V]).key)
	}
}
