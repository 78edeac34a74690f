package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tabard/backends"
	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/internal/pgtest"
	"tabard/internal/selfca"
	"tabard/lookup"
	"tabard/migrations"
	"tabard/table"
)

// benchSNI fills a PostgreSQL of its own with certificates of very many names, each
// with a key of its own, and asks lookup for random ones, as handshakes do.
func benchSNI(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench sni", flag.ContinueOnError)
	names := fs.Int("names", 100_000, "names with a certificate")
	ask := fs.Int("ask", 20_000, "how many are asked for, cold, in each measurement")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pg, err := pgtest.Start(ctx, pgtest.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = pg.Close() }()
	db, err := pg.CreateDatabase(ctx)
	if err != nil {
		return err
	}
	url := pg.URL(db)
	if err := fillCertificates(ctx, url, *names); err != nil {
		return err
	}
	cfg, err := config.Parse("bench", []byte("table t "+url+"\nlisten on 127.0.0.1 tls pki <t>\nmatch from any for any reject\n"), config.Options{})
	if err != nil {
		return err
	}
	before := heap()
	began := time.Now()
	svc, err := lookup.New(ctx, lookup.Options{Config: cfg, Hostname: "bench.example", Open: func(ctx context.Context, t config.Table) (table.Backend, error) {
		return backends.Open(ctx, t, table.Options{Log: slog.New(slog.DiscardHandler)})
	}})
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	fmt.Printf("started in %v, with %d names in the table\n", time.Since(began).Round(time.Microsecond), *names)
	fmt.Printf("%-8s %12s %10s %10s %12s\n", "callers", "chains/s", "p50 us", "p99 us", "heap MiB")
	order := rand.Perm(*names)
	for _, callers := range []int{1, 64} {
		n := min(*ask, len(order))
		took, all, err := askCold(ctx, svc, order[:n], callers)
		if err != nil {
			return err
		}
		order = order[n:]
		slices.Sort(took)
		us := func(p int) float64 { return float64(took[len(took)*p/100].Nanoseconds()) / 1000 }
		fmt.Printf("%-8d %12.0f %10.0f %10.0f %12d\n", callers, float64(n)/all.Seconds(), us(50), us(99), (heap()-before)>>20)
	}
	return nil
}

// fillCertificates makes and stores a certificate for each name.
func fillCertificates(ctx context.Context, url string, names int) error {
	if _, _, err := (provision.Source{Conninfo: url}).Migrate(ctx); err != nil {
		return err
	}
	db, err := migrations.OpenPostgres(url)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	now := time.Now()
	ca, err := selfca.New("bench", now.Add(-time.Hour))
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for i := range names {
		chain, key, err := ca.Issue(selfca.Request{Names: []string{domain(i)}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)})
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO certificates (name, chain, key) VALUES ($1, $2, $3)`, domain(i), string(chain), string(key)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// askCold asks for each name once.
func askCold(ctx context.Context, svc *lookup.Service, names []int, callers int) ([]time.Duration, time.Duration, error) {
	took := make([]time.Duration, len(names))
	errs := make([]error, callers)
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for c := range callers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(names)); i = next.Add(1) - 1 {
				at := time.Now()
				if _, err := svc.Certificate(ctx, lookup.CertificateRequest{ServerName: domain(names[i])}); err != nil {
					errs[c] = err
					return
				}
				took[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	return took, time.Since(began), errors.Join(errs...)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
