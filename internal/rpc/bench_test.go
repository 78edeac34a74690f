package rpc

import (
	"sync"
	"testing"

	"tabard/lookup"
)

// The peers are two processes; a call carries what a handshake asks.
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(map[int]string{1: "1", 64: "64"}[callers], func(b *testing.B) {
			c := startProcess(b)
			work := make(chan struct{}, callers)
			var wg sync.WaitGroup
			body := make([]byte, 100)
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for range work {
						if _, err := Invoke[[]byte, []byte](b.Context(), c, "T.Echo", body); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

func BenchmarkCoding(b *testing.B) {
	c, err := NewCoding()
	if err != nil {
		b.Fatal(err)
	}
	req := lookup.SignRequest{Handle: "sha256:0123456789abcdef", Digest: make([]byte, 32), Hash: 5}
	b.ReportAllocs()
	for b.Loop() {
		data, err := c.Marshal(req)
		if err != nil {
			b.Fatal(err)
		}
		var got lookup.SignRequest
		if err := c.Unmarshal(data, &got); err != nil {
			b.Fatal(err)
		}
	}
}
