package rpc

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"testing"
)

// blocked asks for Block as a piece of something large does.
type blocked struct{}

func (blocked) Bulk() {}

// Few pieces are in flight; other calls pass them; those that wait hear of the end of
// their context and of the connection.
func TestBulkWaitsItsTurn(t *testing.T) {
	const callers = 3 * maxBulk
	svc := newService()
	c, _ := start(t, svc)
	all := make(chan error, callers)
	for range callers {
		go func() { all <- c.Call(t.Context(), "T.Block", blocked{}, &None{}) }()
	}
	eventually(t, "the pieces are in flight", func() bool { return svc.entered.Load() == maxBulk })
	if _, err := Invoke[None, None](t.Context(), c, "T.Nothing", None{}); err != nil {
		t.Errorf("a small call: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Call(ended, "T.Block", blocked{}, &None{}); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting in vain: %v", err)
	}
	for range callers {
		svc.gate <- struct{}{}
		if err := <-all; err != nil {
			t.Error(err)
		}
	}
	if most := svc.most.Load(); most != maxBulk {
		t.Errorf("%d pieces were in flight at once, want %d", most, maxBulk)
	}
	for range callers {
		go func() { all <- c.Call(t.Context(), "T.Block", blocked{}, &None{}) }()
	}
	eventually(t, "the pieces are in flight again", func() bool { return svc.entered.Load() == callers+maxBulk })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range callers {
		if err := <-all; !errors.Is(err, ErrUnavailable) {
			t.Errorf("after the connection was lost: %v", err)
		}
	}
}

// piece is 64 KiB of a body.
type piece []byte

func (piece) Bulk() {}

// Pieces are encoded and sent in memory that is used again. The peer is another process.
func TestBulkLeavesNoGarbage(t *testing.T) {
	c, _ := startProcess(t)
	data := make(piece, 64<<10)
	send := func(callers, each int) {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					if err := c.Call(t.Context(), "T.Swallow", data, &None{}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	least := uint64(math.MaxUint64)
	for range 10 { // a collection or the race detector may have pools forget what they have
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		send(16, 5)
		runtime.ReadMemStats(&after)
		least = min(least, (after.TotalAlloc-before.TotalAlloc)/(16*5))
	}
	if least > uint64(len(data)) {
		t.Errorf("%d bytes of memory for each piece of %d", least, len(data))
	}
}
