package rpc

import "sync"

// gate bounds the requests in flight on a connection, by number and by bytes.
type gate struct {
	mu     sync.Mutex
	freed  sync.Cond
	slots  int
	bytes  int
	closed bool
}

func newGate(slots, bytes int) *gate {
	g := &gate{slots: max(slots, 1), bytes: bytes}
	g.freed.L = &g.mu
	return g
}

// try enters without waiting.
func (g *gate) try(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.enter(n)
}

func (g *gate) enter(n int) bool {
	if g.closed || g.slots == 0 || g.bytes < n {
		return false
	}
	g.slots--
	g.bytes -= n
	return true
}

// wait enters as soon as there is room, and reports false once closed.
func (g *gate) wait(n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.enter(n) {
		if g.closed {
			return false
		}
		g.freed.Wait()
	}
	return true
}

func (g *gate) leave(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slots++
	g.bytes += n
	g.freed.Signal()
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.freed.Broadcast()
}
