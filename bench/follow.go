package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tabard/internal/config"
	"tabard/table"
	"tabard/table/cache"
)

// follow changes rows one after the other, and measures how long after that the
// cache gives the first new answer.
func (b *tables) follow(ctx context.Context, s subject, c *cache.Cache) error {
	var took []time.Duration
	for n := range b.commits {
		key, url := domain(n%s.rows), fmt.Sprintf("tls://new%d.example.net", n)
		if _, err := c.Lookup(ctx, table.RelayHost, key); err != nil {
			return err
		}
		seen := make(chan time.Time, 1)
		go func() { seen <- firstAnswer(ctx, c, key, url) }()
		sent, err := s.change(ctx, key, url)
		if err != nil {
			return err
		}
		at := <-seen
		if at.IsZero() {
			return fmt.Errorf("change %d of %s was never answered", n, key)
		}
		took = append(took, at.Sub(sent))
	}
	slices.Sort(took)
	ms := func(p int) float64 { return float64(took[len(took)*p/100].Microseconds()) / 1000 }
	fmt.Printf("%-9s from COMMIT to the first new answer, %d times: p50 %.2f ms, p99 %.2f ms, worst %.2f ms\n", s.kind, len(took), ms(50), ms(99), float64(took[len(took)-1].Microseconds())/1000)
	return nil
}

// firstAnswer asks until the answer is new.
func firstAnswer(ctx context.Context, c *cache.Cache, key, url string) time.Time {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if row, err := c.Lookup(ctx, table.RelayHost, key); err == nil && len(row) == 1 && row[0] == url {
			return time.Now()
		}
	}
	return time.Time{}
}

// commit changes a row by a statement in a transaction.
func commit(db *sql.DB, query string) func(context.Context, string, string) (time.Time, error) {
	return func(ctx context.Context, domain, url string) (time.Time, error) {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return time.Time{}, err
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(ctx, query, url, domain); err != nil {
			return time.Time{}, err
		}
		sent := time.Now()
		return sent, tx.Commit()
	}
}

// fileRows is how many lines the file has: it is written anew for every change.
const fileRows = 1000

// file is a table file that is replaced by renaming a new one over it.
func (b *tables) file(context.Context) (subject, error) {
	path := filepath.Join(b.dir, "relays")
	rows := make([]string, fileRows)
	for i := range rows {
		rows[i] = fmt.Sprintf("tls://mx%d.example.net", i%50)
	}
	write := func() error {
		f, err := os.Create(path + ".new")
		if err != nil {
			return err
		}
		w := bufio.NewWriter(f)
		for i, url := range rows {
			fmt.Fprintf(w, "%s\t%s\n", domain(i), url)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		return f.Close()
	}
	s := subject{kind: "file", rows: fileRows, decl: config.Table{Name: "t", Kind: "file", Source: path}, close: func() {}}
	s.change = func(_ context.Context, key, url string) (time.Time, error) {
		for i := range rows {
			if domain(i) == key {
				rows[i] = url
			}
		}
		if err := write(); err != nil {
			return time.Time{}, err
		}
		sent := time.Now()
		return sent, os.Rename(path+".new", path)
	}
	if err := write(); err != nil {
		return s, err
	}
	return s, os.Rename(path+".new", path)
}

// ldif writes the entries of the directory.
func (b *tables) ldif(base string) io.Reader {
	r, w := io.Pipe()
	go func() {
		out := bufio.NewWriterSize(w, 1<<20)
		fmt.Fprintf(out, "dn: %s\nobjectClass: organizationalUnit\nou: relays\n\n", base)
		for i := range b.ldapRows {
			fmt.Fprintf(out, "dn: cn=%s,%s\nobjectClass: device\ncn: %s\ndescription: tls://mx%d.example.net\n\n", domain(i), base, domain(i), i%50)
		}
		_ = w.CloseWithError(out.Flush()) // slapadd tells what came of it
	}()
	return r
}
