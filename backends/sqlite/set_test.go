package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/backends/sqltable"
	"tabard/internal/config"
	"tabard/table"
	"tabard/table/gather"
)

// openRaw returns the table itself, and the query of a service.
func openRaw(t *testing.T, source string, s table.Service) (*Table, *sqltable.Query) {
	t.Helper()
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: source}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	tab := b.(*Table)
	return tab, tab.Queries().Of(s)
}

// asOne reports whether the query was asked for many keys by one statement.
func asOne(t *testing.T, tab *Table, q *sqltable.Query) bool {
	t.Helper()
	h, err := tab.pool.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer h.users.Done()
	p := h.known(q, nil)
	return p != nil && p.set.Load() != nil && p.width.Load() > 0
}

// Asked together, keys get what they get alone: every service of our schema.
func TestManyKeysAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	db := newDB(t, path)
	for _, statement := range []string{
		`INSERT INTO aliases (address, target) VALUES ('a@x', 'one'), ('a@x', 'two, "q" \ three'), ('B@x', 'ü'), ('c@x', 'line' || char(9) || '2')`,
		`INSERT INTO users (name, password, uid, gid, home) VALUES ('a', 'h', 1000, 4294967294, '/home/a'), ('b', NULL, NULL, NULL, NULL)`,
		`INSERT INTO relay_credentials (label, username, password) VALUES ('label', 'u', 'p'), ('a', 'hidden', 'p')`,
		`INSERT INTO relays (match, url, priority) VALUES ('a', 'tls://2', 2), ('a', 'tls://1', 1), ('*', 'tls://3', 1)`,
		`INSERT INTO hostnames (address, hostname) VALUES ('2001:db8::1', 'v6.example')`,
		`INSERT INTO certificates (name, chain, key) VALUES ('a', 'chain', NULL), ('a', 'chain2', 'key2')`,
		`INSERT INTO domains (name) VALUES ('a')`,
	} {
		exec(t, db, statement)
	}
	keys := []string{"a", "b", "a@x", "b@x", "c@x", "nobody", "a", "label", "*", "", "[2001:db8::1]", "'; --", "%", `"`, "\t"}
	for _, s := range table.Services() {
		tab, q := openRaw(t, path, s)
		if q == nil {
			continue
		}
		want := make([][]table.Row, len(keys))
		var err error
		for i, k := range keys {
			if want[i], err = tab.pool.One(t.Context(), q, q.Args(k)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := tab.pool.Many(t.Context(), q, keys)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", s, err, diff)
		}
		if !asOne(t, tab, q) {
			t.Errorf("%s: not asked as one", s)
		}
	}
}

// A query of another schema is asked as one where that can be, and one after the
// other where not; what is wrong with one key is its own fault.
func TestManyKeysOfOtherSchemas(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "other.db")
	db := rawDB(t, path)
	exec(t, db, `CREATE TABLE t (k, v); INSERT INTO t VALUES ('a', 'x'), ('a', 'y'), ('blob', x'1761'), ('float', 1.5), ('bad', CAST(x'ff' AS TEXT)), ('nul', 'a' || char(0))`)
	exec(t, db, `INSERT INTO t SELECT 'long', printf('%d', value) FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 10001) SELECT value FROM n)`)
	tests := []struct {
		query string
		fails bool // as one statement, whatever the keys
	}{
		{"SELECT v FROM t WHERE k = ? ORDER BY v DESC;", false},
		{"SELECT v FROM t WHERE k = :key UNION SELECT '$1 ?' WHERE $key = 'q' -- ?", false},
		{"WITH u(w) AS (SELECT v FROM t WHERE k = ?1) SELECT w FROM u", false},
		{"SELECT v AS \"odd name\" FROM t WHERE k = @key LIMIT 1", false},
		{"VALUES (?)", false},
	}
	for i, tt := range tests {
		conf := writeFile(t, filepath.Join(dir, fmt.Sprint(i, ".conf")), "dbpath "+path+"\nquery_alias "+tt.query+"\n")
		tab, q := openRaw(t, conf, table.Alias)
		keys := []string{"a", "none", "a", "blob"} // the blob would be "a" as JSON
		want := make([][]table.Row, len(keys))
		for i, k := range keys {
			var err error
			if want[i], err = tab.pool.One(t.Context(), q, q.Args(k)); err != nil {
				t.Fatalf("%s: %v", tt.query, err)
			}
		}
		got, err := tab.pool.Many(t.Context(), q, keys)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.query, err, diff)
		}
		if strings.HasPrefix(tt.query, "VALUES") {
			continue
		}
		for _, bad := range []string{"float", "bad", "nul", "long"} {
			if strings.Contains(tt.query, "LIMIT 1") && bad == "long" {
				continue
			}
			if got, err := tab.pool.Many(t.Context(), q, []string{"a", bad}); !errors.Is(err, gather.ErrSplit) {
				t.Errorf("%s: %s: %q, %v; want them asked alone", tt.query, bad, got, err)
			}
		}
	}
}

// A key compares alike alone and with others: by the collation and the affinity
// of what it is compared with, whichever side that stands on.
func TestManyKeysCompareAlike(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "other.db")
	exec(t, rawDB(t, path), `CREATE TABLE t (k TEXT COLLATE NOCASE, n INTEGER, v TEXT); INSERT INTO t VALUES ('Alice', 5, 'x')`)
	for i, query := range []string{
		"SELECT v FROM t WHERE k = ?",
		"SELECT v FROM t WHERE ? = k",
		"SELECT v FROM t WHERE ? IN (SELECT k FROM t)",
		"SELECT v FROM t WHERE k IN (SELECT ?)",
		"SELECT v FROM t WHERE ? BETWEEN k AND k",
		"SELECT v FROM t WHERE CASE ? WHEN k THEN 1 END",
		"SELECT v FROM t WHERE n = ?",
		"SELECT v FROM t WHERE ? = n",
		"SELECT v FROM t WHERE n = ? COLLATE NOCASE",
		"SELECT typeof(?)",
	} {
		conf := writeFile(t, filepath.Join(dir, fmt.Sprint(i, ".conf")), "dbpath "+path+"\nquery_alias "+query+"\n")
		tab, q := openRaw(t, conf, table.Alias)
		for _, k := range []string{"alice", "ALICE", "5", "05", "5.0", "nobody", ""} {
			want, err := tab.pool.One(t.Context(), q, q.Args(k))
			if err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			got, err := tab.pool.Many(t.Context(), q, []string{k, k})
			if diff := cmp.Diff([][]table.Row{want, want}, got); diff != "" || err != nil {
				t.Errorf("%s: %q: %v\n%s", query, k, err, diff)
			}
		}
	}
}

func TestKeyThatIsNoText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	exec(t, newDB(t, path), `INSERT INTO aliases (address, target) VALUES ('a`+"\uFFFD"+`', 'x')`)
	tab, _ := openRaw(t, path, table.Alias)
	if row, err := tab.Lookup(t.Context(), table.Alias, "a\xff"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("%q, %v", row, err)
	}
}

// BenchmarkCallers asks for different keys by several callers at once.
func BenchmarkCallers(b *testing.B) {
	const n = 100_000
	tab := openTable(b, fill(b, n))
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			next := make(chan int, 1024)
			go func() {
				for i := range b.N {
					next <- i * 7919 % n
				}
				close(next)
			}()
			done := make(chan error)
			for range callers {
				go func() {
					var err error
					for i := range next {
						if _, e := tab.Lookup(context.Background(), table.Alias, fmt.Sprintf("u%d@example.org", i)); e != nil {
							err = e
						}
					}
					done <- err
				}()
			}
			for range callers {
				if err := <-done; err != nil {
					b.Error(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
		})
	}
}
