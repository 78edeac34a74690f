package deliver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"tabard/lookup"
	"tabard/queue"
)

// benchDir is where the benchmarks write: TABARD_BENCH_DIR names a directory on
// the file system to be measured.
func benchDir(b *testing.B) string {
	b.Helper()
	parent := os.Getenv("TABARD_BENCH_DIR")
	if parent == "" {
		return b.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "maildir")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// BenchmarkMaildir delivers 4 KiB messages for one user, synced.
func BenchmarkMaildir(b *testing.B) {
	body := strings.Repeat("0123456789abcdef0123456789abcd\r\n", 128)
	for _, grouped := range []bool{true, false} {
		for _, parallel := range []int{1, 4, 16, 64} {
			b.Run(fmt.Sprintf("grouped=%v/parallel=%d", grouped, parallel), func(b *testing.B) {
				benchMaildir(b, body, parallel, grouped)
			})
		}
	}
}

func benchMaildir(b *testing.B, body string, parallel int, grouped bool) {
	dir := filepath.Join(benchDir(b), "m")
	a := newAgent(newFakeQueue(), Options{Hostname: "h"}.withDefaults(), osFS{})
	if err := a.makeMaildir(dir); err != nil {
		b.Fatal(err)
	}
	job := testJob(1, lookup.Delivery{Method: "maildir", Path: dir}, body)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range parallel {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				one := a
				if !grouped {
					copied := *a
					copied.dirs = newDirSyncer(osFS{}) // its own: nobody to share with
					one = &copied
				}
				if st := one.deliver(b.Context(), newParcel(a.worker, job, job.Envelopes[0])); st.outcome != queue.Delivered {
					b.Errorf("status %+v", st)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
