package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/pgtest"
	"tabard/table"
)

const benchRows = 100_000

// benchDB is a server of its own with rows in our own schema.
func benchDB(b *testing.B, rows int) (url string) {
	b.Helper()
	s, err := pgtest.Start(b.Context(), pgtest.Options{Settings: []string{"shared_buffers = '256MB'"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	url = s.URL("postgres")
	migrate(b, url)
	conn := connect(b, url)
	exec(b, conn, fmt.Sprintf("INSERT INTO relays (match, url) SELECT 'd' || n || '.example', 'smtp://r' || n FROM generate_series(1, %d) n; ANALYZE", rows))
	return url
}

func BenchmarkLookup(b *testing.B) {
	url := benchDB(b, benchRows)
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			t := open(b, url)
			b.Cleanup(func() { t.Close() })
			var next atomic.Int64
			times := make([][]time.Duration, callers)
			ask := func(n int64, each *[]time.Duration) {
				began := time.Now()
				row, err := t.Lookup(context.Background(), table.RelayHost, fmt.Sprintf("d%d.example", 1+n*7919%benchRows))
				if err != nil || len(row) != 1 {
					b.Errorf("%q, %v", row, err)
				}
				*each = append(*each, time.Since(began))
			}
			var warm []time.Duration
			ask(0, &warm)
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						ask(n, &times[i])
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
			percentiles(b, slices.Concat(times...))
		})
	}
}

func percentiles(b *testing.B, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
}

// BenchmarkChange measures from the moment that COMMIT is sent until the change
// is told.
func BenchmarkChange(b *testing.B) {
	url := benchDB(b, 1000)
	conn := connect(b, url)
	t, err := Open(b.Context(), config.Table{Source: url}, table.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { t.Close() })
	changes := make(chan table.Change, 16)
	go t.(table.Watcher).Watch(b.Context(), func(c table.Change) { changes <- c })
	<-changes
	b.ResetTimer()
	var all []time.Duration
	for n := range b.N {
		exec(b, conn, "BEGIN")
		exec(b, conn, "UPDATE relays SET priority = $1 WHERE match = 'd7.example'", n)
		began := time.Now()
		exec(b, conn, "COMMIT")
		if c := <-changes; c.Key != "d7.example" {
			b.Fatalf("told %v", c)
		}
		all = append(all, time.Since(began))
	}
	percentiles(b, all)
}
