package coalesce

import (
	"net"
	"runtime"
	"testing"
)

// A peer that never reads what is sent to it makes those who send wait, not grow.
func TestIsBounded(t *testing.T) {
	a, b := net.Pipe() // holds nothing by itself
	w := NewWriter(a, 1000, 1000)
	frame := func(buf []byte) []byte { return append(buf, make([]byte, 600)...) }
	added := 0
	blocked := make(chan error, 1)
	go func() {
		var err error
		for ; err == nil; added++ {
			err = w.Add(frame)
		}
		blocked <- err
	}()
	for full := false; !full; runtime.Gosched() {
		w.mu.Lock()
		full = len(w.buf) >= 1000
		w.mu.Unlock()
	}
	b.Close()
	if err := <-blocked; err == nil {
		t.Error("no error")
	}
	if added > 2+2+1 { // on their way, waiting, and the one that failed
		t.Errorf("%d frames were taken", added)
	}
	w.Close() // it has ended already
	w.Flush() // nothing more is written
}

// What was added before the end is written, and nothing is taken afterwards.
func TestClose(t *testing.T) {
	a, b := net.Pipe()
	w := NewWriter(a, 0, 1000)
	hi := func(buf []byte) []byte { return append(buf, "hi"...) }
	if err := w.Add(hi); err != nil {
		t.Fatal(err)
	}
	got := make(chan int)
	go func() {
		n, _ := b.Read(make([]byte, 10))
		got <- n
	}()
	w.Close()
	if n := <-got; n != 2 {
		t.Errorf("%d bytes", n)
	}
	if err := w.Add(hi); err != ErrClosed {
		t.Errorf("after the end: %v", err)
	}
}
