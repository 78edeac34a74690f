package queue_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tabard/internal/bodycode"
	"tabard/queue"
)

// parallel runs f b.N times on so many goroutines.
func parallel(b *testing.B, goroutines int, f func(i int)) {
	work := make(chan int, goroutines)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range work {
				f(i)
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

func BenchmarkEnqueue(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for _, n := range []int{1, 50, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := open(b, filepath.Join(b.TempDir(), "queue.db"), queue.Options{Logger: slog.New(slog.DiscardHandler)}, &local{})
			parallel(b, n, func(i int) {
				s := message("sender@x.example", fmt.Sprintf("rcpt%d@y%d.example", i, i%100))
				if err := r.Enqueue(context.Background(), s, body); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

func BenchmarkLifeCycle(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for _, n := range []int{1, 50, 200} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := open(b, filepath.Join(b.TempDir(), "queue.db"), queue.Options{}, &local{})
			var delivered sync.WaitGroup
			for range max(1, n/2) {
				w, release := r.RelayWorker()
				b.Cleanup(release)
				go func() {
					for {
						jobs, err := w.Take(context.Background(), 10)
						if err != nil {
							return
						}
						var all []queue.Result
						for _, j := range jobs {
							all = append(all, results(j, queue.Result{Outcome: queue.Delivered, Code: 250, Enhanced: "2.0.0", Text: "ok"})...)
						}
						if err := w.Done(context.Background(), all); err != nil {
							return
						}
						delivered.Add(-len(all))
					}
				}()
			}
			parallel(b, n, func(i int) {
				delivered.Add(1)
				s := message("sender@x.example", fmt.Sprintf("rcpt%d@y%d.example", i, i%100))
				if err := r.Enqueue(context.Background(), s, body); err != nil {
					b.Error(err)
				}
				if i == b.N-1 {
					delivered.Wait()
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkEnqueueStored enqueues by 50 at once, with bodies stored in each form: small
// ones and, in files, large ones.
func BenchmarkEnqueueStored(b *testing.B) {
	for _, form := range []struct {
		name  string
		coder *bodycode.Coder
	}{{"none", coder(b, false)}, {"zstd", coder(b, true)}, {"aes", coder(b, false, 1)}, {"both", coder(b, true, 1)}} {
		for _, size := range []int{4 << 10, 1 << 20} {
			body := prose(size)
			b.Run(fmt.Sprintf("%s/%dKiB", form.name, size>>10), func(b *testing.B) {
				r := open(b, filepath.Join(b.TempDir(), "queue.db"), queue.Options{Logger: slog.New(slog.DiscardHandler), Coder: form.coder}, &local{})
				b.SetBytes(int64(size))
				parallel(b, 50, func(i int) {
					w, err := r.Create(context.Background())
					if err == nil {
						_, err = w.Write(body)
					}
					if err == nil {
						err = w.Commit(context.Background(), message("sender@x.example", fmt.Sprintf("rcpt%d@y%d.example", i, i%100)))
					}
					if err != nil {
						b.Error(err)
					}
				})
			})
		}
	}
}

// prose is n bytes that shrink about as much as text with some base64 in it does.
func prose(n int) []byte {
	words := strings.Fields("the message that waits in a queue until its destination answers and is then gone from here for good")
	rnd := rand.New(rand.NewPCG(1, 2))
	body := make([]byte, 0, n+100)
	for len(body) < n {
		if len(body)%3000 < 1500 {
			body = append(append(body, words[rnd.IntN(len(words))]...), ' ')
			continue
		}
		body = fmt.Appendf(body, "%s\r\n", base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%x", rnd.Uint64())))
	}
	return body[:n]
}
