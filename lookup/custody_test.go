package lookup

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"tabard/internal/config"
	"tabard/table"
)

// What falls out of custody takes its handles along, and is known again when it
// is served again.
func TestCustodyIsBounded(t *testing.T) {
	c := newCustody(newVault(config.Custody{}, newPEMFiles(), slog.New(slog.DiscardHandler)))
	c.parsed.max = 3
	chain, key := newAuthority(t, "CA", nil).server("ecdsa", nil, "mx.example.org")
	row := func(i int) table.Row {
		return table.Row{chain, key, fmt.Sprintf("# %d\n-----BEGIN X-----\n-----END X-----\n", i), ""}
	}
	first := c.open(row(0))
	if first.err == nil || len(first.pairs) != 1 {
		t.Fatalf("%v, %d pairs", first.err, len(first.pairs))
	}
	handle := first.handle(0, UseServer)
	if _, err := c.find(handle); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		c.open(row(i + 1))
	}
	if _, err := c.find(handle); err == nil {
		t.Error("a handle outlives its certificate")
	}
	if len(c.handles) != 6 {
		t.Errorf("%d handles of 3 certificates", len(c.handles))
	}
	c.adopt(first)
	if h, err := c.find(handle); err != nil || h.use != UseServer {
		t.Errorf("adopted: %+v, %v", h.use, err)
	}
	if c.open(row(0)) != first || len(c.handles) != 6 {
		t.Error("not adopted")
	}
}

func TestCustodyParallel(t *testing.T) {
	c := newCustody(newVault(config.Custody{}, newPEMFiles(), slog.New(slog.DiscardHandler)))
	c.parsed.max = 2
	chain, key := newAuthority(t, "CA", nil).server("ecdsa", nil, "mx.example.org")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				c.open(table.Row{chain, key, fmt.Sprintf("%d", (g+i)%5), ""})
			}
		})
	}
	wg.Wait()
	if len(c.handles) != 4 {
		t.Errorf("%d handles of 2 certificates", len(c.handles))
	}
}

func TestLRU(t *testing.T) {
	l := newLRU[int, string](2)
	l.put(1, "a")
	l.put(2, "b")
	l.get(1)
	l.put(3, "c")
	if _, ok := l.get(2); ok {
		t.Error("2 was used least recently and is still there")
	}
	if v, ok := l.get(1); v != "a" || !ok {
		t.Error("1 is gone")
	}
	if l.getOrPut(1, "x") != "a" || l.getOrPut(4, "d") != "d" {
		t.Error("getOrPut")
	}
	l.put(4, "e")
	l.remove(1)
	if all := l.all(); len(all) != 1 || all[0] != "e" {
		t.Errorf("all: %v", all)
	}
}
