package sqlite

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/table"
)

// The parts of a key, alone and among many: what a stranger writes into them stays
// a value.
func TestPlaceholders(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "other.db")
	exec(t, rawDB(t, path), `CREATE TABLE u (name TEXT COLLATE NOCASE, domain, n INTEGER, v);
INSERT INTO u VALUES ('Alice', 'example.org', 1, 'a'), ('bob', 'example.org', 2, 'b'), ('o''brien', 'example.org', 5, 'o'), ('root', '', 3, 'r'), ('a@b', 'example.org', 4, 'x')`)
	keys := []string{"alice@example.org", "bob@example.org", "o'brien@example.org", "a@b@example.org", "root", "bob@example.net", "@example.org",
		"' OR 1=1 --@example.org", "bob@' OR '1'='1", `"],["x`, "3", "3@x", "{user}@{domain}", "?1@?2", "ü@ö.example"}
	for i, tt := range []struct{ query, key, want string }{
		{"SELECT v FROM u WHERE name = {user} AND domain = {domain}", "alice@example.org", "a"},
		{"SELECT v FROM u WHERE {user} = name AND domain = {domain}", "o'brien@example.org", "o"},
		{"SELECT v FROM u WHERE {user} = name AND domain = {domain}", "a@b@example.org", "x"},
		{"SELECT v FROM u WHERE {user} = name", "ROOT", "r"},
		{"SELECT v FROM u WHERE {user} = n", "3", "r"},
		{"SELECT group_concat(v) FROM u WHERE domain = {domain} HAVING count(*)", "@example.org", "a,b,o,x"},
		{"SELECT {key} || '|' || {domain} || '|' || ?", "bob@example.org", "bob@example.org|example.org|bob@example.org"},
		{"SELECT typeof({user}) || typeof({domain})", "1@2", "texttext"},
	} {
		conf := writeFile(t, filepath.Join(dir, "t.conf"), "dbpath "+path+"\nquery_string "+tt.query+"\n")
		tab, q := openRaw(t, conf, table.String)
		if row, err := tab.Lookup(t.Context(), table.String, tt.key); err != nil || row[0] != tt.want {
			t.Errorf("%s: %q: %q, %v; want %q", tt.query, tt.key, row, err, tt.want)
		}
		var want [][]table.Row
		for _, k := range keys {
			rows, err := tab.pool.One(t.Context(), q, q.Args(k))
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, rows)
		}
		got, err := tab.pool.Many(t.Context(), q, keys)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%d: %s: %v\n%s", i, tt.query, err, diff)
		}
		if !asOne(t, tab, q) {
			t.Errorf("%s: not asked as one", tt.query)
		}
		if row, err := tab.Lookup(t.Context(), table.String, "nobody@"); !errors.Is(err, table.ErrNotFound) && strings.Contains(tt.query, "{domain}") {
			t.Errorf("%s: without a domain: %q, %v", tt.query, row, err)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "other.db")
	exec(t, rawDB(t, path), `CREATE TABLE u (name, domain, pw); INSERT INTO u VALUES ('alice', 'example.org', 'geheim'), ('null', 'example.org', NULL)`)
	for query, good := range map[string]string{
		"SELECT 1 FROM u WHERE name = ? AND pw = ?":                                  "alice",
		"SELECT pw = ?2 FROM u WHERE name = ?1":                                      "alice",
		"SELECT pw = :password FROM u WHERE name = :user":                            "alice",
		"SELECT pw = {password} FROM u WHERE name = {user} AND domain = {domain}":    "alice@example.org",
		"SELECT pw = {password} FROM u WHERE name || '@' || domain = {key} LIMIT 1;": "alice@example.org",
	} {
		b := open(t, writeFile(t, filepath.Join(dir, "t.conf"), "dbpath "+path+"\nquery_auth "+query+"\n")).(*Table)
		if ok, err := b.Authenticates(t.Context()); !ok || err != nil {
			t.Errorf("%s: Authenticates = %v, %v", query, ok, err)
		}
		for _, tt := range []struct {
			user, password string
			want           bool
		}{
			{good, "geheim", true}, {good, "wrong", false}, {good, "", false}, {"bob@example.org", "geheim", false}, {"bob", "geheim", false},
			{strings.Replace(good, "alice", "null", 1), "x", false}, {good, "' OR 1 --", false}, {good, "geheim\x00", false}, {"\xff", "geheim", false},
		} {
			if ok, err := b.Authenticate(t.Context(), tt.user, tt.password); ok != tt.want || err != nil {
				t.Errorf("%s: %q %q = %v, %v", query, tt.user, tt.password, ok, err)
			}
		}
		if err := b.Ping(t.Context()); err != nil {
			t.Errorf("%s: Ping: %v", query, err)
		}
		b.Close()
	}
	own := open(t, path).(*Table)
	defer own.Close()
	if ok, err := own.Authenticates(t.Context()); ok || err != nil {
		t.Errorf("our own schema judges passwords: %v, %v", ok, err)
	}
}

// No error repeats a password.
func TestPasswordsInErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "other.db")
	exec(t, rawDB(t, path), `CREATE TABLE u (name, pw); INSERT INTO u VALUES ('alice', 'hash')`)
	for query, want := range map[string]string{
		"SELECT json_extract('{}', {password}) FROM u WHERE name = ?": "query_auth: SQLite refuses a value",
		"SELECT pw FROM u WHERE name = {key} OR name = {password}":    "query_auth: answers neither true nor false",
		"SELECT nosuch FROM u WHERE name = {key} AND pw = {password}": "no such column: nosuch",
		"SELECT 1, 2 FROM u WHERE name = {key} OR name = {password}":  "query_auth: selects 2 columns, auth needs 1",
	} {
		b := open(t, writeFile(t, filepath.Join(dir, "t.conf"), "dbpath "+path+"\nquery_auth "+query+"\n")).(*Table)
		_, err := b.Authenticate(t.Context(), "alice", "geheim")
		if err == nil || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", query, err, want)
		}
		b.Close()
	}
}
