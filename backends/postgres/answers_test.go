package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/backends/sqltable"
	"tabard/internal/pgtest"
	"tabard/table"
	"tabard/table/gather"
)

func TestValues(t *testing.T) {
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('happy');
CREATE TABLE t (k text, i int8, b bool, n text, y bytea, c citext, v varchar(9), j json, a inet, e mood, d numeric, x char(3), nul bytea, bin bytea);
INSERT INTO t VALUES ('k', -5, true, NULL, 'pem ä', 'Ci', 'vc', '{"a": 1}', '192.0.2.1', 'happy', 1.50, 'x', '\x6100', '\xff')`)
	for column, want := range map[string]string{
		"i": "-5", "b": "1", "NOT b": "0", "n": "", "y": "pem ä", "c": "Ci", "v": "vc", "j": `{"a": 1}`, "a": "192.0.2.1",
		"e": "happy", "d": "1.50", "x": "x  ", "ARRAY['a','b']": "a", "'{}'::text[]": "",
	} {
		b := open(t, writeConf(t, url, "query_string SELECT "+column+" FROM t WHERE k = $1\n"))
		row, err := b.Lookup(t.Context(), table.String, "k")
		if err != nil || strings.Join(row, "|") != want && column != "ARRAY['a','b']" {
			t.Errorf("%s = %q, %v; want %q", column, row, err, want)
		}
		b.Close()
	}
	for column, want := range map[string]string{"nul": "column nul: has a NUL", "bin": "column bin: is not UTF-8", "ARRAY[ARRAY['a']] AS x": "column x: is not a list"} {
		_, err := openTable(t, writeConf(t, url, "query_alias SELECT "+column+" FROM t WHERE k = $1\n")).Aliases(t.Context(), "k")
		if err == nil || errors.Is(err, table.ErrNotFound) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "query_alias") {
			t.Errorf("%s: %v", column, err)
		}
	}
	// A row of nothing but NULL is an answer: a user without uid, gid and home.
	tab := openTable(t, writeConf(t, url, "query_userinfo SELECT n, n, n FROM t WHERE k = $1\nquery_mailaddrmap SELECT ARRAY[v, c, NULL] FROM t WHERE k = $1 UNION ALL SELECT '{}'\n"))
	if v, err := tab.UserInfo(t.Context(), "k"); err != nil || v.Home != "" {
		t.Errorf("userinfo = %v, %v", v, err)
	}
	if v, err := tab.MailAddrMap(t.Context(), "k"); err != nil || len(v) != 2 {
		t.Errorf("an array of addresses = %v, %v", v, err)
	}
	if v, err := tab.MailAddrMap(t.Context(), "nobody"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("an empty array = %v, %v", v, err)
	}
}

// ownQuery returns a query of our own schema, on one line.
func ownQuery(t *testing.T, s table.Service) string {
	t.Helper()
	q, err := sqltable.OwnSchema(dialect())
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(q.Of(s).SQL, "\n", " ")
}

// Whatever a query is, several keys asked at once get what each gets alone.
func TestSetsAnswerAsOne(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, `CREATE EXTENSION citext;
CREATE TABLE k (id serial, key text, ord int, ci citext, ch char(5), i int, u uuid, n inet, tabard_key text, key_ text);
INSERT INTO k (key, ord, ci, ch, i, n, tabard_key) SELECT CASE WHEN x % 2 = 0 THEN 'a' ELSE 'b' END, -x, 'A', 'a', x, '192.0.2.1', 't' FROM generate_series(1, 9) x;
INSERT INTO aliases (address, target) SELECT 'a', 't' || x FROM generate_series(9, 1, -1) x;
CREATE FUNCTION f(text) RETURNS SETOF text LANGUAGE sql AS 'SELECT key || id FROM k WHERE key = $1 ORDER BY id DESC'`)
	keys := []string{"a", "b", "nobody", "a", "", "3", "4294967296", "192.0.2.1", "t", "A", "%", "'; --", `\`}
	// The keys that the type of a column can express.
	ofType := map[string][]string{
		"SELECT i FROM k WHERE i = $1":           {"3", "4", "99"},
		"SELECT u FROM k WHERE u = $1":           {"6b9a1a3e-5d0a-4e52-8b0f-1f1d3f6b2c11", "00000000-0000-0000-0000-000000000000"},
		"SELECT n FROM k WHERE n >>= $1 LIMIT 1": {"192.0.2.1", "::1"},
	}
	for query, batched := range map[string]bool{
		ownQuery(t, table.Alias): true, ownQuery(t, table.MailAddrMap): true, ownQuery(t, table.AddrName): true,
		"SELECT url FROM relays WHERE lower(match) = $1 ORDER BY priority, weight DESC": true,
		"SELECT ord FROM k WHERE key = $1 ORDER BY ord":                                 true,
		"SELECT ord FROM k WHERE $1 = key ORDER BY key DESC, id DESC LIMIT 3 -- $1":     true,
		"SELECT ord FROM k WHERE $1 = key ORDER BY id; -- $1":                           false,
		"SELECT ci FROM k WHERE ci = $1 LIMIT 1":                                        true,
		"SELECT ch FROM k WHERE ch = $1 LIMIT 1":                                        true,
		"SELECT i FROM k WHERE i = $1":                                                  true,
		"SELECT u FROM k WHERE u = $1":                                                  true,
		"SELECT n FROM k WHERE n >>= $1 LIMIT 1":                                        true,
		"SELECT tabard_key FROM k WHERE tabard_key = $1 LIMIT 1":                        true,
		"SELECT string_agg(key || id, ',' ORDER BY id) FROM k WHERE key = $1":           true,
		"SELECT $1::text || 'x'":                                                        true,
		"WITH w AS (SELECT id FROM k WHERE key = $1) SELECT id FROM w ORDER BY id DESC": true,
		"SELECT f($1)":        true,
		"SELECT * FROM f($1)": true,
		"VALUES ($1), ('x')":  true,
		"SELECT id FROM k WHERE key = $1 UNION SELECT ord FROM k WHERE key = $1 ORDER BY 1": true,
		"SELECT max($1::text)":                             false,
		"SELECT count(*) FROM k WHERE key LIKE $1 /* open": false,
	} {
		b := open(t, writeConf(t, url, "query_alias "+query+"\n")).(*Table)
		err := b.pool.do(t.Context(), func(ctx context.Context, l *link) error {
			q := b.Queries().Of(table.Alias)
			if strings.HasSuffix(query, "open") {
				_, err := l.many(ctx, q, keys)
				if err == nil {
					t.Errorf("%s is answered", query)
				}
				return nil
			}
			keys := keys
			if typed := ofType[query]; typed != nil {
				if _, err := l.many(ctx, q, keys); !errors.Is(err, gather.ErrSplit) {
					t.Errorf("%s: %v; want them asked alone", query, err)
				}
				keys = typed
			}
			all, err := l.many(ctx, q, keys)
			if err != nil {
				return err
			}
			if got := l.sets[q].sql != ""; got != batched {
				t.Errorf("%s: one statement for all: %v", query, got)
			}
			for i, key := range keys {
				alone, err := l.one(ctx, q, q.Args(key))
				if err != nil {
					return err
				}
				if !slices.EqualFunc(alone, all[i], slices.Equal) {
					t.Errorf("%s\n%q alone is %q, with others %q", query, key, alone, all[i])
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", query, err)
		}
		b.Close()
	}
}

// together asks for keys at the same moment and returns the errors.
func together(t *testing.T, b table.Backend, s table.Service, keys []string) []error {
	t.Helper()
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() {
			row, err := b.Lookup(t.Context(), s, k)
			if err == nil && (len(row) != 1 || row[0] != "answer "+k) {
				err = fmt.Errorf("answer %q", row)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errs
}

// A key that makes the query fail does not take the others with it.
func TestOneBadKeyAmongMany(t *testing.T) {
	url := pgtest.Database(t)
	for _, query := range []string{
		"SELECT 'answer ' || $1 WHERE 1 / CASE $1 WHEN 'k7' THEN 0 ELSE 1 END = 1",
		"SELECT 'answer ' || max($1::text) FROM (SELECT 1 / CASE $1 WHEN 'k7' THEN 0 ELSE 1 END AS x) AS y WHERE x = 1",
	} {
		b := open(t, writeConf(t, url, "query_string "+query+"\n"))
		defer b.Close()
		var keys []string
		for i := range 200 {
			keys = append(keys, fmt.Sprint("k", i))
		}
		for i, err := range together(t, b, table.String, keys) {
			if bad := i == 7; bad != (err != nil) || bad && (errors.Is(err, table.ErrNotFound) || !strings.Contains(err.Error(), "query_string: ERROR: division by zero")) {
				t.Errorf("%s: %v", keys[i], err)
			}
		}
	}
}

func TestKeysOfOtherTypes(t *testing.T) {
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE TABLE t (i int2, n inet, s text); INSERT INTO t VALUES (7, '192.0.2.0/24', 'x')`)
	b := open(t, writeConf(t, url, "query_string SELECT s FROM t WHERE i = $1\nquery_netaddr SELECT s FROM t WHERE n >>= $1\nquery_domain SELECT s::int FROM t WHERE s = $1\n"))
	defer b.Close()
	for key, found := range map[string]bool{"7": true, "8": false, "bob": false, "70000": false, "": false, "7'": false} {
		if _, err := b.Lookup(t.Context(), table.String, key); (err == nil) != found || !found && !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%q: %v", key, err)
		}
	}
	for key, found := range map[string]bool{"192.0.2.9": true, "[::1]": false, "local": false} {
		if ok, err := b.Check(t.Context(), table.NetAddr, key); ok != found || err != nil {
			t.Errorf("%q: %v, %v", key, ok, err)
		}
	}
	// What the table holds is another matter.
	if _, err := b.Lookup(t.Context(), table.Domain, "x"); err == nil || errors.Is(err, table.ErrNotFound) {
		t.Errorf("a value that does not convert: %v", err)
	}
}

func TestKeysFromStrangers(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, `INSERT INTO aliases (address, target) VALUES ('root', 'admin'); INSERT INTO domains VALUES ('a.example')`)
	b := open(t, url)
	defer b.Close()
	for _, key := range []string{"'; DROP TABLE aliases; --", `\'; DROP TABLE aliases; --`, "$1", "root' OR '1'='1", "%", "_", "{root}", "NULL", "ROOT ", "\xff\xfe", "a\x00b", "root\x00", "é\xcc\x81"} {
		if row, err := b.Lookup(t.Context(), table.Alias, key); !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%q: %q, %v", key, row, err)
		}
		if ok, err := b.Check(t.Context(), table.Domain, key); ok || err != nil {
			t.Errorf("%q: %v, %v", key, ok, err)
		}
	}
	if row, err := b.Lookup(t.Context(), table.Alias, "root"); err != nil || len(row) != 1 {
		t.Errorf("root = %q, %v", row, err)
	}
}

func TestLargeAnswers(t *testing.T) {
	url := pgtest.Database(t)
	b := open(t, writeConf(t, url, `query_string SELECT repeat('x', $1::int << 20)
query_alias SELECT 'a' FROM generate_series(1, $1::int)
query_domain SELECT n FROM generate_series(1, $1::int) n ORDER BY n
`))
	defer b.Close()
	if row, err := b.Lookup(t.Context(), table.String, "10"); err != nil || len(row[0]) != 10<<20 {
		t.Errorf("10 MB: %v", err)
	}
	if row, err := b.Lookup(t.Context(), table.Alias, "1000"); err != nil || len(row) != 1000 {
		t.Errorf("1,000 rows: %d, %v", len(row), err)
	}
	if row, err := b.Lookup(t.Context(), table.Domain, "30000"); err != nil || len(row) != 1 || row[0] != "1" {
		t.Errorf("the first row of many: %q, %v", row, err)
	}
	for s, key := range map[table.Service]string{table.String: "17", table.Alias: "10001"} {
		if _, err := b.Lookup(t.Context(), s, key); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s %s: %v", s, key, err)
		}
	}
	if _, err := b.Lookup(t.Context(), table.String, "60"); err == nil || errors.Is(err, table.ErrNotFound) {
		t.Errorf("60 MB: %v", err)
	}
	var wg sync.WaitGroup
	for range 20 { // more than what one statement may answer
		wg.Go(func() {
			if row, err := b.Lookup(t.Context(), table.String, "3"); err != nil || len(row[0]) != 3<<20 {
				t.Errorf("3 MB among others: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestStatementTimeout(t *testing.T) {
	url := pgtest.Database(t)
	b := open(t, writeConf(t, url, "timeout 200ms\nquery_string SELECT pg_sleep(3600)::text WHERE $1 <> 'x'\nquery_alias SELECT 'a' WHERE $1 = 'a'\n"))
	defer b.Close()
	began := time.Now()
	for i, err := range together(t, b, table.String, []string{"a", "b", "c", "d", "e", "f", "g", "h"}) {
		if err == nil || errors.Is(err, table.ErrNotFound) || !strings.Contains(err.Error(), "query_string: ERROR: canceling statement due to statement timeout") {
			t.Errorf("%d: %v", i, err)
		}
		if row, err := b.Lookup(t.Context(), table.Alias, "a"); err != nil || len(row) != 1 {
			t.Errorf("meanwhile: %v", err)
		}
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("took %s", d)
	}
}

// A caller who gives up gets away at once, and costs no connection.
func TestCallersGiveUp(t *testing.T) {
	url := pgtest.Database(t)
	b := open(t, writeConf(t, url, "timeout 2s\npool 1\nquery_string SELECT pg_backend_pid()::text FROM pg_sleep(CASE $1 WHEN 'slow' THEN 0.5 ELSE 0 END)\n"))
	defer b.Close()
	before, err := b.Lookup(t.Context(), table.String, "quick")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := b.Lookup(ctx, table.String, "slow"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 400*time.Millisecond {
		t.Errorf("gave up after %s: %v", time.Since(began), err)
	}
	after, err := b.Lookup(t.Context(), table.String, "quick")
	if err != nil || after[0] != before[0] {
		t.Errorf("session %q, before it was %q, %v", after, before, err)
	}
}

func TestAuthenticate(t *testing.T) {
	ctx := t.Context()
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE EXTENSION pgcrypto; CREATE TABLE u (name text, pw text);
INSERT INTO u VALUES ('alice', crypt('geheim', gen_salt('bf', 4))), ('null', NULL)`)
	b := open(t, writeConf(t, url, "query_auth SELECT crypt($2, pw) = pw FROM u WHERE name = $1\n")).(*Table)
	defer b.Close()
	if ok, err := b.Authenticates(ctx); !ok || err != nil {
		t.Errorf("Authenticates = %v, %v", ok, err)
	}
	for _, tt := range []struct {
		user, password string
		want           bool
	}{
		{"alice", "geheim", true}, {"alice", "wrong", false}, {"alice", "", false}, {"bob", "geheim", false},
		{"null", "x", false}, {"alice", "' OR true --", false}, {"alice", "geheim\x00", false}, {"\xff", "geheim", false},
	} {
		if ok, err := b.Authenticate(ctx, tt.user, tt.password); ok != tt.want || err != nil {
			t.Errorf("%q %q = %v, %v", tt.user, tt.password, ok, err)
		}
	}
	odd := open(t, writeConf(t, url, "query_auth SELECT pw FROM u WHERE name = $1 AND $2 <> ''\n")).(*Table)
	defer odd.Close()
	if _, err := odd.Authenticate(ctx, "alice", "x"); err == nil || strings.Contains(err.Error(), "$2a$") {
		t.Errorf("a hash for an answer: %v", err)
	}
	reads := open(t, writeConf(t, url, "query_auth SELECT $2::int FROM u WHERE name = $1\n")).(*Table)
	defer reads.Close()
	if ok, err := reads.Authenticate(ctx, "alice", "geheim"); ok || strings.Contains(fmt.Sprint(err), "geheim") {
		t.Errorf("a query that quotes the password: %v, %v", ok, err)
	}
	quotes := open(t, writeConf(t, url, "query_auth SELECT ($2::text || pw)::int FROM u WHERE name = $1\n")).(*Table)
	defer quotes.Close()
	if _, err := quotes.Authenticate(ctx, "alice", "geheim"); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a query that quotes the password: %v", err)
	}
	plain := openTable(t, writeConf(t, url, "query_alias SELECT 'a' WHERE $1 = 'a'\n"))
	if _, err := plain.Check(ctx, table.Auth, "x"); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("check of auth: %v", err)
	}
}

// Questions cannot write.
func TestSessionsOnlyRead(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, `CREATE FUNCTION w(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO domains VALUES ($1); RETURN $1; END'`)
	for options, want := range map[string]bool{"": false, "&target_session_attrs=read-write": false, "&default_transaction_read_only=off": true} {
		b := open(t, writeConf(t, url+options, "query_string SELECT w($1)\n"))
		if _, err := b.Lookup(t.Context(), table.String, "x"+options); (err == nil) != want {
			t.Errorf("%s: %v", options, err)
		}
		b.Close()
	}
}

// The ways of asking that work through a proxy.
func TestExecModes(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, `INSERT INTO aliases (address, target) SELECT 'k' || n, 'answer k' || n FROM generate_series(1, 50) n`)
	for _, mode := range []string{"cache_describe", "describe_exec", "exec", "simple_protocol"} {
		b := open(t, url+"&default_query_exec_mode="+mode)
		var keys []string
		for i := range 50 {
			keys = append(keys, fmt.Sprint("k", i+1))
		}
		for i, err := range together(t, b, table.Alias, keys) {
			if err != nil {
				t.Errorf("%s: %s: %v", mode, keys[i], err)
			}
		}
		if err := b.(*Table).Ping(t.Context()); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		b.Close()
	}
}
