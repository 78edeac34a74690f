package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"

	"path/filepath"
	"testing"

	"tabard/table"
	"tabard/table/tabletest"
)

// fill makes a database with n users, aliases and domains, and some certificates.
func fill(b *testing.B, n int) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "mail.db")
	db := newDB(b, path)
	tx, err := db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		insert(b, tx, `INSERT INTO aliases (address, target) VALUES (?, ?)`, fmt.Sprintf("u%d@example.org", i), fmt.Sprintf("u%d", i))
		insert(b, tx, `INSERT INTO users (name, password) VALUES (?, '$6$salt$hash')`, fmt.Sprintf("u%d", i))
		insert(b, tx, `INSERT INTO domains (name) VALUES (?)`, fmt.Sprintf("d%d.example", i))
	}
	insert(b, tx, `INSERT INTO domains (name) VALUES ('*.wild.example')`)
	pair := tabletest.NewPair(b, "mx.example.org", "ecdsa", nil)
	for i := range 1000 {
		insert(b, tx, `INSERT INTO certificates (name, chain, key) VALUES (?, ?, ?)`, fmt.Sprintf("mx%d.example.org", i), pair.Chain, pair.Key)
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	return path
}

func insert(b *testing.B, tx *sql.Tx, query string, args ...any) {
	b.Helper()
	if _, err := tx.Exec(query, args...); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkLookups(b *testing.B) {
	tab := openTable(b, fill(b, 100_000))
	ctx := context.Background()
	for name, ask := range map[string]func() error{
		"alias":       func() error { _, err := tab.Aliases(ctx, "u77777@example.org"); return err },
		"credentials": func() error { _, err := tab.Credentials(ctx, "u77777"); return err },
		"cert":        func() error { _, err := tab.Lookup(ctx, table.Cert, "mx777.example.org"); return err },
		"cert-parsed": func() error { _, err := tab.KeyPairs(ctx, "mx777.example.org"); return err },
		"domain":      func() error { _, err := tab.Check(ctx, table.Domain, "d77777.example"); return err },
		"domain-miss": func() error { _, err := tab.Check(ctx, table.Domain, "nosuch.example"); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-parallel", func(b *testing.B) {
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := ask(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkRandom asks for random rows of many, which no page cache holds.
func BenchmarkRandom(b *testing.B) {
	path := fill(b, 1)
	db := newDB(b, path)
	const many = `WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 1000000)
INSERT INTO aliases (address, target) SELECT 'u' || n || '@example.org', 'u' || n FROM s`
	if _, err := db.Exec(many); err != nil {
		b.Fatal(err)
	}
	tab := openTable(b, path)
	ctx := context.Background()
	ask := func() error {
		_, err := tab.Aliases(ctx, fmt.Sprintf("u%d@example.org", 1+rand.IntN(1_000_000)))
		return err
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if err := ask(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("64", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := ask(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
