package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"
	_ "modernc.org/sqlite" // the driver that fills the database

	"tabard/backends"
	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/internal/ldaptest"
	"tabard/internal/pgtest"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/cache"
)

// tables measures look-ups of "domain: relay" in PostgreSQL, SQLite and slapd, the
// servers on the same cores: put to the source each time, and from the cache.
type tables struct {
	rows, ldapRows int
	commits        int
	callers        []int
	during         time.Duration
	kinds          []string
	dir            string
}

// subject is one kind of source, filled.
type subject struct {
	kind    string
	decl    config.Table
	rows    int
	postmap string // TYPE:FILE for postmap -q
	// change gives a row another URL, and returns when the change was sent off.
	change func(ctx context.Context, domain, url string) (sent time.Time, err error)
	close  func()
}

func benchTables(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench tables", flag.ContinueOnError)
	var b tables
	fs.IntVar(&b.rows, "rows", 1_000_000, "rows in PostgreSQL and SQLite")
	fs.IntVar(&b.ldapRows, "ldap-rows", 1_000_000, "entries in slapd")
	fs.IntVar(&b.commits, "commits", 300, "how many changes are followed")
	fs.DurationVar(&b.during, "during", 5*time.Second, "how long each figure is measured")
	kinds := fs.String("kinds", "postgres,sqlite,ldap,file", "which sources")
	callers := fs.String("callers", "1,16,64", "callers at once")
	if err := fs.Parse(args); err != nil {
		return err
	}
	b.kinds = strings.Split(*kinds, ",")
	for text := range strings.SplitSeq(*callers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("callers %q: want numbers", *callers)
		}
		b.callers = append(b.callers, n)
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "tabard-bench"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	fmt.Printf("%-9s %-8s %8s %12s %10s %10s\n", "source", "answers", "callers", "look-ups/s", "p50 us", "p99 us")
	for _, kind := range b.kinds {
		if err := b.measure(ctx, kind); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

func (b *tables) measure(ctx context.Context, kind string) error {
	fill := map[string]func(context.Context) (subject, error){"postgres": b.postgres, "sqlite": b.sqlite, "ldap": b.ldap, "file": b.file}[kind]
	if fill == nil {
		return errors.New("unknown kind; want postgres, sqlite, ldap or file")
	}
	s, err := fill(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	backend, err := backends.Open(ctx, s.decl, table.Options{})
	if err != nil {
		return err
	}
	cached, err := cache.New(backend, cache.Options{Name: kind, Size: 512 << 20})
	if err != nil {
		return err
	}
	defer func() { _ = cached.Close() }()
	for _, n := range b.callers {
		b.line(ctx, kind, "source", n, func() error { return ask(ctx, backend, rand.IntN(s.rows)) })
	}
	if err := warm(ctx, cached, s.rows/10); err != nil {
		return err
	}
	for _, n := range b.callers {
		// A tenth of the keys, as hot ones are, and known already.
		b.line(ctx, kind, "cached", n, func() error { return ask(ctx, cached, rand.IntN(s.rows/10)) })
	}
	if err := b.follow(ctx, s, cached); err != nil {
		return err
	}
	b.memory(ctx, kind, cached, s.rows)
	if s.postmap == "" {
		return nil
	}
	for _, n := range []int{1, 4} {
		if err := b.postmap(ctx, s, n); err != nil {
			fmt.Printf("%-9s postmap: %v\n", kind, err)
			break
		}
	}
	return nil
}

func domain(i int) string { return fmt.Sprintf("d%d.example", i) }

func ask(ctx context.Context, b table.Backend, i int) error {
	row, err := b.Lookup(ctx, table.RelayHost, domain(i))
	if err == nil && len(row) != 1 {
		err = fmt.Errorf("%s: %d columns", domain(i), len(row))
	}
	return err
}

// warm asks for each of the first n keys once.
func warm(ctx context.Context, c *cache.Cache, n int) error {
	var next atomic.Int64
	errs := make([]error, 64)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = ask(ctx, c, int(i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// line measures one figure. The first quarter of the time is not counted.
func (b *tables) line(ctx context.Context, kind, answers string, callers int, do func() error) {
	begin := time.Now().Add(b.during / 4)
	end := begin.Add(b.during)
	var count atomic.Int64
	var failed atomic.Pointer[error]
	took := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				at := time.Now()
				if at.After(end) {
					return
				}
				if err := do(); err != nil {
					failed.Store(&err)
					return
				}
				if at.After(begin) {
					count.Add(1)
					if n%16 == 0 { // a sample is enough
						took[c] = append(took[c], time.Since(at))
					}
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	if err := failed.Load(); err != nil || len(all) == 0 {
		fmt.Printf("%-9s %-8s %8d failed: %v\n", kind, answers, callers, err)
		return
	}
	us := func(p int) float64 { return float64(all[len(all)*p/100].Nanoseconds()) / 1000 }
	fmt.Printf("%-9s %-8s %8d %12.0f %10.1f %10.1f\n", kind, answers, callers, float64(count.Load())/b.during.Seconds(), us(50), us(99))
}

// memory says what a cache of many answers takes.
func (b *tables) memory(ctx context.Context, kind string, c *cache.Cache, rows int) {
	n := min(rows, 1_000_000)
	if warm(ctx, c, n) != nil {
		return
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	s := c.Stats()
	fmt.Printf("%-9s cache of %d answers: %d MiB by its own count, heap of the whole program %d MiB\n", kind, s.Entries, s.Bytes>>20, m.HeapAlloc>>20)
}

// fillRelays puts rows into our own schema by one statement.
func fillRelays(ctx context.Context, db *sql.DB, series string) error {
	defer func() { _ = db.Close() }()
	_, err := db.ExecContext(ctx, `INSERT INTO relays (match, url) SELECT 'd' || n || '.example', 'tls://mx' || (n % 50) || '.example.net' FROM `+series)
	return err
}

func (b *tables) postgres(ctx context.Context) (subject, error) {
	pg, err := pgtest.Start(ctx, pgtest.Options{})
	if err != nil {
		return subject{}, err
	}
	s := subject{kind: "postgres", rows: b.rows, close: func() { _ = pg.Close() }}
	name, err := pg.CreateDatabase(ctx)
	if err != nil {
		return s, err
	}
	url := pg.URL(name)
	if _, _, err := (provision.Source{Conninfo: url}).Migrate(ctx); err != nil {
		return s, err
	}
	db, err := migrations.OpenPostgres(url)
	if err != nil {
		return s, err
	}
	if err := fillRelays(ctx, db, fmt.Sprintf("generate_series(0, %d) AS n", b.rows-1)); err != nil {
		return s, err
	}
	if err := pg.Exec(ctx, name, "VACUUM ANALYZE relays"); err != nil {
		return s, err
	}
	s.decl = config.Table{Name: "t", Kind: "postgres", Source: url}
	writer, err := migrations.OpenPostgres(url)
	if err != nil {
		return s, err
	}
	s.change = commit(writer, `UPDATE relays SET url = $1 WHERE lower(match) = $2`)
	s.close = func() { _, _ = writer.Close(), pg.Close() }
	s.postmap, err = b.write("pgsql.cf", fmt.Sprintf("hosts = 127.0.0.1:%d\nuser = %s\ndbname = %s\nquery = SELECT url FROM relays WHERE lower(match) = '%%s'\n", pg.Port, pgtest.User, name))
	s.postmap = "pgsql:" + s.postmap
	return s, err
}

func (b *tables) sqlite(ctx context.Context) (subject, error) {
	path := filepath.Join(b.dir, "mail.db")
	s := subject{kind: "sqlite", rows: b.rows, close: func() {}, decl: config.Table{Name: "t", Kind: "sqlite", Source: path}}
	if _, _, err := (provision.Source{Path: path}).Migrate(ctx); err != nil {
		return s, err
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return s, err
	}
	writer, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return s, err
	}
	s.change = commit(writer, `UPDATE relays SET url = ? WHERE match = ?`)
	s.close = func() { _ = writer.Close() }
	series := fmt.Sprintf("(WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s LIMIT %d) SELECT n FROM s)", b.rows)
	if err := fillRelays(ctx, db, series); err != nil {
		return s, err
	}
	s.postmap, err = b.write("sqlite.cf", "dbpath = "+path+"\nquery = SELECT url FROM relays WHERE match = '%s'\n")
	s.postmap = "sqlite:" + s.postmap
	return s, err
}

func (b *tables) ldap(ctx context.Context) (subject, error) {
	dir, err := ldaptest.New(ctx, ldaptest.Options{DB: []string{"maxsize 8589934592"}})
	if err != nil {
		return subject{}, err
	}
	s := subject{kind: "ldap", rows: b.ldapRows, close: func() { _ = dir.Close() }}
	base := "ou=relays," + dir.Suffix
	if err := dir.Fill(ctx, b.ldif(base)); err != nil {
		return s, err
	}
	writer, err := dir.Connect()
	if err != nil {
		return s, err
	}
	s.close = func() { _, _ = writer.Close(), dir.Close() }
	s.change = func(_ context.Context, domain, url string) (time.Time, error) {
		change := ldap.NewModifyRequest("cn="+domain+","+base, nil)
		change.Replace("description", []string{url})
		sent := time.Now()
		return sent, writer.Modify(change)
	}
	conf, err := b.write("ldap.conf", fmt.Sprintf("url %s\nusername %s\npassword %s\nbasedn %s\nrelayhost_filter (cn=%%s)\nrelayhost_attributes description\n",
		dir.URL, dir.RootDN, ldaptest.Password, base))
	if err != nil {
		return s, err
	}
	s.decl = config.Table{Name: "t", Kind: "ldap", Source: conf}
	s.postmap, err = b.write("ldap.cf", fmt.Sprintf("server_host = %s\nversion = 3\nbind = yes\nbind_dn = %s\nbind_pw = %s\nsearch_base = %s\nquery_filter = (cn=%%s)\nresult_attribute = description\n",
		dir.URL, dir.RootDN, ldaptest.Password, base))
	s.postmap = "ldap:" + s.postmap
	return s, err
}

func (b *tables) write(name, text string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
