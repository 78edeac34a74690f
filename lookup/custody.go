package lookup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	uses    []Use      // what its keys may be used for
	handles [][]string // of each pair, by the order of uses
	names   []string   // of each pair, for UseDKIM: the selector
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
	return c.once(row, func(p *parsedRow) {
		p.uses = []Use{UseServer, UseClient}
		p.pairs, p.err = c.vault.parseKeyPairs(row)
	})
}

// openDKIM returns the keys in a dkim row, parsed once for each content.
func (c *custody) openDKIM(row table.Row) *parsedRow {
	of := table.Row{"dkim"}
	for _, col := range row {
		of = append(of, col)
		if _, file, ok := strings.Cut(col, ":file:"); ok { // selector and key in one column
			of = append(of, "file:"+file)
		}
	}
	return c.once(of, func(p *parsedRow) {
		p.uses = []Use{UseDKIM}
		p.pairs, p.names, p.err = c.vault.parseDKIM(row)
	})
}

// once returns what parse made of a content, which it is called for when the
// content, or what it is opened with, is new.
func (c *custody) once(content table.Row, parse func(*parsedRow)) *parsedRow {
	sum := rowSum(content, c.vault.refresh())
	if p, ok := c.parsed.get(sum); ok {
		return p
	}
	p := &parsedRow{sum: sum}
	parse(p)
	return c.adopt(p.named())
}

// named gives the keys of a row their handles.
func (p *parsedRow) named() *parsedRow {
	for range p.pairs {
		var all []string
		for _, use := range p.uses {
			all = append(all, newHandle(use))
		}
		p.handles = append(p.handles, all)
	}
	return p
}

// adopt keeps p, unless another caller was first, and makes its handles known.
func (c *custody) adopt(p *parsedRow) *parsedRow {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.parsed.getOrPut(p.sum, p)
	for i, all := range kept.handles {
		for j, h := range all {
			c.handles[h] = holder{kept.pairs[i], kept.uses[j]}
		}
	}
	return kept
}

// forget drops the handles of a row that falls out, which only happens while
// adopt holds mu.
func (c *custody) forget(p *parsedRow) {
	for _, all := range p.handles {
		for _, h := range all {
			delete(c.handles, h)
		}
	}
}

// handle returns the handle of pair i for a use that the row's keys have.
func (p *parsedRow) handle(i int, use Use) string { return p.handles[i][slices.Index(p.uses, use)] }

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
	switch u {
	case UseClient:
		return "c."
	case UseDKIM:
		return "d."
	}
	return "s."
}

// checkHandle refuses a handle that was not given out for one of the uses.
func checkHandle(handle string, uses ...Use) error {
	if len(handle) <= 64 && len(handle) >= 3 && slices.ContainsFunc(uses, func(u Use) bool { return handle[:2] == u.prefix() }) {
		return nil
	}
	return fmt.Errorf("%w for this use", ErrHandle)
}
