package main

import (
	"runtime"
	"testing"
	"time"
)

func TestPacedPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		most int
		want int
	}{
		{0, 400, 400}, {4 << 20, 400, 400}, {8 << 20, 400, 400}, {16 << 20, 400, 200}, {32 << 20, 400, 100}, {1 << 40, 400, 100},
		{8 << 20, 200, 200}, {20 << 20, 200, 160},
	} {
		if got := pacedPercent(c.live, c.most); got != c.want {
			t.Errorf("%d bytes live, %d %% at most: %d, want %d", c.live, c.most, got, c.want)
		}
	}
}

// TestPacer: while much lives the percentage is low, and afterwards what it was.
func TestPacer(t *testing.T) {
	set := make(chan int, 100)
	(&pacer{most: 1000, now: 1000, set: func(percent int) { set <- percent }}).watch()
	want := func(what string, ok func(int) bool) {
		t.Helper()
		patience := time.After(20 * time.Second)
		for {
			runtime.GC()
			select {
			case percent := <-set:
				if ok(percent) {
					return
				}
			case <-time.After(10 * time.Millisecond): // another collection
			case <-patience:
				t.Fatalf("the percentage did not go %s", what)
			}
		}
	}
	much := make([]byte, 2*gcSlack)
	want("down", func(p int) bool { return p == 100 })
	runtime.KeepAlive(much)
	want("up", func(p int) bool { return p > 100 })
}
