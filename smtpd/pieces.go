package smtpd

import (
	"sync"

	"tabard/queue"
)

// pieces are the buffers in which messages are collected that do not stay small, used
// again and again: a large message then leaves no garbage, whatever its size.
type pieces struct{ free sync.Pool }

// get returns an empty buffer for n bytes.
func (p *pieces) get(n int) []byte {
	if n < queue.InlineBody {
		return make([]byte, 0, n)
	}
	if b, ok := p.free.Get().(*[queue.InlineBody]byte); ok {
		return b[:0]
	}
	return make([]byte, 0, queue.InlineBody)
}

// put takes a buffer back that nobody reads any more.
func (p *pieces) put(b []byte) {
	if cap(b) == queue.InlineBody {
		p.free.Put((*[queue.InlineBody]byte)(b[:queue.InlineBody]))
	}
}
