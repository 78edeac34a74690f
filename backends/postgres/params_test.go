package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"tabard/internal/pgtest"
	"tabard/table"
)

// The parts of a key, alone and among many: what a stranger writes into them stays
// a value.
func TestPlaceholders(t *testing.T) {
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE TABLE u (name text, domain varchar(99), n int, v text);
INSERT INTO u VALUES ('alice', 'example.org', 1, 'a'), ('bob', 'example.org', 2, 'b'), ('o''brien', 'example.org', 5, 'o'), ('root', '', 3, 'r'), ('a@b', 'example.org', 4, 'x')`)
	keys := []string{"alice@example.org", "bob@example.org", "o'brien@example.org", "a@b@example.org", "root@x", "bob@example.net",
		"' OR 1=1 --@example.org", "bob@' OR '1'='1", `"],["x@{`, `\'@\`, "{user}@{domain}", "$1@$2", "ü@ö.example"}
	for _, tt := range []struct {
		query, key, want string
		batched          bool
	}{
		{"SELECT v FROM u WHERE name = {user} AND domain = {domain}", "alice@example.org", "a", true},
		{"SELECT v FROM u WHERE {user} = name AND domain = {domain} ORDER BY n DESC", "o'brien@example.org", "o", true},
		{"SELECT v FROM u WHERE {user} = name AND domain = {domain}", "a@b@example.org", "x", true},
		{"SELECT v FROM u WHERE {user} = name", "root", "r", true},
		{"SELECT string_agg(v, ',' ORDER BY n) FROM u WHERE domain = {domain} HAVING count(*) > 0", "@example.org", "a,b,x,o", true},
		{"SELECT $1 || '|' || {domain} || '|' || {key} || '|' || {user}", "bob@example.org", "bob@example.org|example.org|bob@example.org|bob", true},
		{"SELECT max({user}::text || {domain}::text)", "a@b", "ab", false},
	} {
		b := open(t, writeConf(t, url, "query_string "+tt.query+"\n")).(*Table)
		if err := b.Ping(t.Context()); err != nil {
			t.Errorf("%s: Ping: %v", tt.query, err)
		}
		if row, err := b.Lookup(t.Context(), table.String, tt.key); err != nil || row[0] != tt.want {
			t.Errorf("%s: %q: %q, %v; want %q", tt.query, tt.key, row, err, tt.want)
		}
		if row, err := b.Lookup(t.Context(), table.String, "nobody@"); !errors.Is(err, table.ErrNotFound) && strings.Contains(tt.query, "{domain}") {
			t.Errorf("%s: without a domain: %q, %v", tt.query, row, err)
		}
		err := b.pool.do(t.Context(), func(ctx context.Context, l *link) error {
			q := b.Queries().Of(table.String)
			all, err := l.many(ctx, q, keys)
			if err != nil {
				return err
			}
			if got := l.sets[q].sql != ""; got != tt.batched {
				t.Errorf("%s: one statement for all: %v", tt.query, got)
			}
			for i, key := range keys {
				alone, err := l.one(ctx, q, q.Args(key))
				if err != nil {
					return err
				}
				if !slices.EqualFunc(alone, all[i], slices.Equal) {
					t.Errorf("%s\n%q alone is %q, with others %q", tt.query, key, alone, all[i])
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", tt.query, err)
		}
		b.Close()
	}
}

// A part that the type of its column cannot express is nobody's.
func TestPlaceholdersOfOtherTypes(t *testing.T) {
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE TABLE u (name text, id int, v text); INSERT INTO u VALUES ('x', 7, 'answer x@7'), ('x', 8, 'answer x@8')`)
	b := open(t, writeConf(t, url, "query_string SELECT v FROM u WHERE name = {user} AND id = {domain}\n"))
	defer b.Close()
	for i, err := range together(t, b, table.String, []string{"x@7", "x@8", "x@7", "x@8", "x@7", "x@8", "x@7", "x@8"}) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, key := range []string{"x@9", "x@bob", "y@7", "7", "x@70000000000"} {
		if row, err := b.Lookup(t.Context(), table.String, key); !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%q: %q, %v", key, row, err)
		}
	}
}

func TestAuthenticateByPlaceholders(t *testing.T) {
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE EXTENSION pgcrypto; CREATE TABLE u (name text, domain text, pw text);
INSERT INTO u VALUES ('alice', 'example.org', crypt('geheim', gen_salt('bf', 4)))`)
	for _, query := range []string{
		"SELECT crypt({password}, pw) = pw FROM u WHERE name = {user} AND domain = {domain}",
		"SELECT crypt($2, pw) = pw FROM u WHERE name || '@' || domain = {key} AND domain = {domain}",
	} {
		b := open(t, writeConf(t, url, "query_auth "+query+"\n")).(*Table)
		for user, want := range map[string]bool{"alice@example.org": true, "alice": false, "alice@": false, "bob@example.org": false} {
			if ok, err := b.Authenticate(t.Context(), user, "geheim"); ok != want || err != nil {
				t.Errorf("%s: %s: %v, %v", query, user, ok, err)
			}
		}
		if ok, err := b.Authenticate(t.Context(), "alice@example.org", "wrong"); ok || err != nil {
			t.Errorf("%s: a wrong password: %v, %v", query, ok, err)
		}
		b.Close()
	}
}
