package lookup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"tabard/table"
)

// maxCustody is how many cert rows are kept parsed. What falls out is
// read and parsed again when it is next asked for.
const maxCustody = 4096

// ErrHandle means that a key handle names no key, or not for this use.
var ErrHandle = errors.New("unknown key handle")

// custody keeps parsed certificates and their keys by the content of the row
// they came from, and gives out handles for their keys.
type custody struct {
	vault  *vault
	parsed *lru[[32]byte, *parsedRow]

	mu      sync.Mutex
	handles map[string]holder
}

// parsedRow is what became of one cert row. It may hold usable pairs
// and a fault at once.
type parsedRow struct {
	sum     [32]byte
	pairs   []*keyPair
	err     error
	handles [][2]string // of each pair, by Use
}

// holder is what a handle stands for.
type holder struct {
	pair *keyPair
	use  Use
}

func newCustody(v *vault) *custody {
	c := &custody{vault: v, parsed: newLRU[[32]byte, *parsedRow](maxCustody), handles: make(map[string]holder)}
	c.parsed.evicted = func(_ [32]byte, p *parsedRow) { c.forget(p) }
	return c
}

// open returns the key pairs in a row, parsed once for each content.
func (c *custody) open(row table.Row) *parsedRow {
	sum := rowSum(row, c.vault.refresh())
	if p, ok := c.parsed.get(sum); ok {
		return p
	}
	p := &parsedRow{sum: sum}
	p.pairs, p.err = c.vault.parseKeyPairs(row)
	for range p.pairs {
		p.handles = append(p.handles, [2]string{newHandle(UseServer), newHandle(UseClient)})
	}
	return c.adopt(p)
}

// adopt keeps p, unless another caller was first, and makes its handles known.
func (c *custody) adopt(p *parsedRow) *parsedRow {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.parsed.getOrPut(p.sum, p)
	for i, h := range kept.handles {
		c.handles[h[0]] = holder{kept.pairs[i], UseServer}
		c.handles[h[1]] = holder{kept.pairs[i], UseClient}
	}
	return kept
}

// forget drops the handles of a row that falls out, which only happens while
// adopt holds mu.
func (c *custody) forget(p *parsedRow) {
	for _, h := range p.handles {
		delete(c.handles, h[0])
		delete(c.handles, h[1])
	}
}

// handle returns the handle of pair i for a use.
func (p *parsedRow) handle(i int, use Use) string { return p.handles[i][use-1] }

// find returns the key pair behind a handle.
func (c *custody) find(handle string) (holder, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok := c.handles[handle]
	if !ok {
		return holder{}, ErrHandle
	}
	return h, nil
}

// newHandle is a random name that begins with a letter for its use, by which
// each edge refuses the other's handles.
func newHandle(use Use) string { return use.prefix() + rand.Text() }

func (u Use) prefix() string {
	if u == UseClient {
		return "c."
	}
	return "s."
}

// checkHandle refuses a handle that was not given out for use.
func checkHandle(handle string, use Use) error {
	if len(handle) > 64 || len(handle) < 3 || handle[:2] != use.prefix() {
		return fmt.Errorf("%w for this use", ErrHandle)
	}
	return nil
}
