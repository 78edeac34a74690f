package sqltable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tabard/table"
	"tabard/table/gather"
)

// answers is a database that has rows for what it is asked: the SQL's first word
// behind WHERE, and the values.
type answers struct {
	rows  map[string][]table.Row
	asked []string
	err   error
}

func (a *answers) One(_ context.Context, q *Query, args []any) ([]table.Row, error) {
	text := strings.TrimSuffix(fmt.Sprintln(args...), "\n")
	a.asked = append(a.asked, text)
	return a.rows[text], a.err
}

func (a *answers) Many(ctx context.Context, q *Query, keys []string) ([][]table.Row, error) {
	return nil, errors.New("not asked for many")
}

func (a *answers) List(_ context.Context, _ *Query, yield func(table.Row) bool) error {
	for _, r := range a.rows["list"] {
		if !yield(r) {
			break
		}
	}
	return a.err
}

// newTable returns a table with the lines of a configuration.
func newTable(t *testing.T, d Dialect, a Asker, lines ...string) *Table {
	t.Helper()
	q := NewQueries(d)
	for _, line := range lines {
		key, value, _ := strings.Cut(line, " ")
		if err := q.Set(key, value, "others"); err != nil {
			t.Fatal(err)
		}
	}
	return New(a, q, table.Options{}, gather.Options{})
}

// A key that lacks a part is not asked for; @ counts where it is last.
func TestPartsOfKeys(t *testing.T) {
	for _, tt := range []struct{ query, key, want string }{
		{"SELECT {key}", "a@b", "a@b"},
		{"SELECT {key}", "", ""},
		{"SELECT {key}", "@b", "@b"},
		{"SELECT {user}", "a@b", "a"},
		{"SELECT {user}", "a@b@c", "a@b"},
		{"SELECT {user}", "root", "root"},
		{"SELECT {user}", "@b", "none"},
		{"SELECT {user}", "", "none"},
		{"SELECT {user}", "a@", "a"},
		{"SELECT {domain}", "a@b@c", "c"},
		{"SELECT {domain}", "@b", "b"},
		{"SELECT {domain}", "root", "none"},
		{"SELECT {domain}", "a@", "none"},
		{"SELECT {domain}, {user}, {domain}", "a@b", "a b"},
		{"SELECT {domain}, $1", "a@b", "a@b b"},
		{"SELECT {domain}, $1", "root", "none"},
	} {
		a := &answers{}
		_, err := newTable(t, postgres(), a, "query_alias "+tt.query).Lookup(t.Context(), table.Alias, tt.key)
		want := []string{tt.want}
		if tt.want == "none" {
			want = nil
		}
		if !errors.Is(err, table.ErrNotFound) || !slices.Equal(a.asked, want) {
			t.Errorf("%s with %q: asked %q, want %q; %v", tt.query, tt.key, a.asked, want, err)
		}
	}
}

func TestStatements(t *testing.T) {
	for query, want := range map[string]string{
		"{domain} $1 {user} {domain}": "$3 $1 $2 $3",
		"{domain} {user}":             "$2 $1",
		"$1 $1;":                      "$1 $1",
	} {
		q, err := postgres().lookup(table.Alias, query)
		if err != nil || q.SQL != want {
			t.Errorf("%s: %+v, %v", query, q, err)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	for _, tt := range []struct {
		d                Dialect
		key, value, want string
	}{
		{sqlite(), "query_nosuch", "SELECT ?", `unknown key "query_nosuch"; expected others, query_SERVICE or fetch_SERVICE`},
		{sqlite(), "lookup_alias", "SELECT ?", "unknown key"},
		{sqlite(), "fetch_auth", "SELECT 1", "unknown key"},
		{sqlite(), "query_alias", "SELECT 1", "query_alias: needs a parameter for the key outside of quotes"},
		{sqlite(), "query_alias", "SELECT '{key}'", "query_alias: needs a parameter"},
		{sqlite(), "query_alias", "SELECT a FROM t WHERE k = '%s'", "write {key}, {user}, {domain} for Postfix'"},
		{sqlite(), "query_alias", "SELECT {password}", "query_alias: placeholder {password}"},
		{sqlite(), "fetch_source", "SELECT {domain}", "fetch_source: must not have a parameter"},
		{sqlite(), "fetch_source", "SELECT {nosuch}", "fetch_source: unknown placeholder {nosuch}"},
		{sqlite(), "fetch_source_expire", "soon", `fetch_source_expire: "soon" is not a number`},
		{sqlite(), "query_auth", "SELECT ?", "query_auth: needs ?1 for the user and ?2 for the password"},
		{sqlite(), "query_auth", "SELECT {key}, {user}", "query_auth: needs ?1"},
		{sqlite(), "query_auth", "SELECT {password}", "query_auth: needs ?1"},
		{postgres(), "query_auth", "SELECT $1", "query_auth: needs $1 for the user and $2"},
	} {
		if err := NewQueries(tt.d).Set(tt.key, tt.value, "others"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %v; want %s", tt.key, tt.value, err, tt.want)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	a := &answers{rows: map[string][]table.Row{
		"alice yes": {{"TRUE"}, {"0"}}, "alice no": {{"f"}}, "alice null": {{""}}, "alice hash": {{"$6$secret"}}, "alice empty": {{}},
	}}
	tab := newTable(t, sqlite(), a, "query_auth SELECT ?1 = ?2")
	for password, want := range map[string]bool{"yes": true, "no": false, "null": false, "empty": false, "none": false, "bad\xff": false, "a\x00": false} {
		if ok, err := tab.Authenticate(t.Context(), "alice", password); ok != want || err != nil {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
	}
	if len(a.asked) != 5 {
		t.Errorf("asked %q", a.asked)
	}
	if _, err := tab.Authenticate(t.Context(), "alice", "hash"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a hash for an answer: %v", err)
	}
	byDomain := newTable(t, sqlite(), a, "query_auth SELECT 1 WHERE {domain} = {password}")
	if ok, err := byDomain.Authenticate(t.Context(), "alice", "yes"); ok || err != nil {
		t.Errorf("a user without a domain: %v, %v", ok, err)
	}
	for s, f := range map[string]func() error{
		"lookup": func() error { _, err := tab.Lookup(t.Context(), table.Auth, "x"); return err },
		"check":  func() error { _, err := tab.Check(t.Context(), table.Auth, "x"); return err },
		"another": func() error {
			_, err := newTable(t, sqlite(), a).Authenticate(t.Context(), "x", "y")
			return err
		},
	} {
		if err := f(); !errors.Is(err, table.ErrUnsupported) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// Errors name the query, whatever was asked.
func TestErrorsNameTheQuery(t *testing.T) {
	down := errors.New("down")
	tab := newTable(t, sqlite(), &answers{err: down}, "query_netaddr SELECT ?", "fetch_netaddr SELECT 1", "query_auth SELECT ?, ?")
	for want, f := range map[string]func() error{
		"query_netaddr: down": func() error { _, err := tab.Lookup(t.Context(), table.NetAddr, "k"); return err },
		"fetch_netaddr: down": func() error { _, err := tab.Fetch(t.Context(), table.NetAddr); return err },
		"query_auth: down":    func() error { _, err := tab.Authenticate(t.Context(), "u", "p"); return err },
	} {
		if err := f(); !errors.Is(err, down) || err.Error() != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
	bad := newTable(t, sqlite(), &answers{rows: map[string][]table.Row{"list": {{"10/40"}}}}, "fetch_netaddr SELECT 1")
	if ok, err := bad.Check(t.Context(), table.NetAddr, "10.0.0.1"); ok || err == nil || !strings.HasPrefix(err.Error(), "fetch_netaddr: ") {
		t.Errorf("an entry that cannot be read: %v, %v", ok, err)
	}
	if err := bad.Validate(t.Context(), table.NetAddr); err == nil {
		t.Error("Validate finds nothing wrong")
	}
}

// Tabard's own schema answers the same services in every dialect, each with one
// parameter that is the key.
func TestOwnSchema(t *testing.T) {
	for _, d := range []Dialect{sqlite(), postgres()} {
		q, err := OwnSchema(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, def := range q.All() {
			if _, service, _ := strings.Cut(def.Name, "_"); service == "" || strings.Contains(def.SQL, "fold(") || strings.Contains(def.SQL, "find(") || strings.Contains(def.SQL, "{") {
				t.Errorf("%s: %s", def.Name, def.SQL)
			}
			if keyed := strings.HasPrefix(def.Name, "query_"); keyed != def.whole {
				t.Errorf("%s: parts %v", def.Name, def.Parts)
			}
		}
		if len(q.lookup) != 17 || len(q.fetch) != 5 || len(q.walk) != 2 || !q.Own {
			t.Errorf("%d look-ups, %d lists, %d walks", len(q.lookup), len(q.fetch), len(q.walk))
		}
	}
}
