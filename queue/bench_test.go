package queue_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

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
