package sqlite

import (
	"strings"
	"testing"

	"tabard/table"
)

func TestParseConf(t *testing.T) {
	src, err := parseConf(`
# as table-sqlite(5) shows it
dbpath /etc/mail/smtp.sqlite
query_alias		SELECT value FROM virtuals WHERE email=?;
query_credentials: SELECT email, password FROM credentials WHERE email=:email
fetch_source	SELECT ip FROM sources
fetch_source_expire 60
query_relayhost	SELECT url FROM r WHERE dom = ?1 OR dom = '*' || ?1
`)
	if err != nil {
		t.Fatal(err)
	}
	if src.path != "/etc/mail/smtp.sqlite" || src.queries.builtin || src.queries.fetch[table.Source] == nil {
		t.Errorf("source = %+v", src)
	}
	for s, want := range map[table.Service]string{
		table.Alias:       "SELECT value FROM virtuals WHERE email=?1;",
		table.Credentials: "SELECT email, password FROM credentials WHERE email=?1",
		table.RelayHost:   "SELECT url FROM r WHERE dom = ?1 OR dom = '*' || ?1",
	} {
		if q := src.queries.lookup[s]; q == nil || q.sql != want {
			t.Errorf("%s: %+v; want %s", s, q, want)
		}
	}
}

func TestParseConfRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "dbpath is missing",
		"dbpath\n":                               `1: "dbpath" has no value`,
		"dbpath /a\ndbpath /b\n":                 `2: "dbpath" is already on line 1`,
		"dbpath /a\nquery_nosuch SELECT 1\n":     `2: unknown key "query_nosuch"`,
		"dbpath /a\nquery_auth SELECT ?\n":       `2: unknown key "query_auth"`,
		"dbpath /a\nconninfo host=x\n":           `2: unknown key "conninfo"`,
		"dbpath /a\nquery_alias SELECT 1\n":      "2: query_alias: needs a parameter",
		"dbpath /a\nquery_alias SELECT '?'\n":    "2: query_alias: needs a parameter",
		"dbpath /a\nfetch_source SELECT ?\n":     "2: fetch_source: must not have a parameter",
		"dbpath /a\nfetch_source_expire soon\n":  "2: fetch_source_expire",
		"dbpath /a\n" + strings.Repeat("x", 100): "2: ",
	} {
		if _, err := parseConf(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseConf(%.40q): %v; want %s", in, err, want)
		}
	}
}

func TestNumberParams(t *testing.T) {
	for in, want := range map[string]string{
		"a = ?":                        "a = ?1",
		"a = ?2 AND b = :name":         "a = ?1 AND b = ?1",
		"a = @x AND b = $1":            "a = ?1 AND b = ?1",
		"a = '?' AND b = \"?\"":        "a = '?' AND b = \"?\"",
		"a = 'it''s ?' -- ?\n AND b=?": "a = 'it''s ?' -- ?\n AND b=?1",
		"[?] = ? /* ? */":              "[?] = ?1 /* ? */",
		"a->'$.x' = ?":                 "a->'$.x' = ?1",
		"'open ?":                      "'open ?",
	} {
		if got, _ := numberParams(in, "?1"); got != want {
			t.Errorf("numberParams(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add("dbpath /a\nquery_alias SELECT a FROM b WHERE c = ?\n")
	f.Add("dbpath /a\nfetch_source SELECT 'x''?' -- [ /*\n")
	f.Fuzz(func(t *testing.T, s string) {
		src, err := parseConf(s)
		if err == nil && src.path == "" {
			t.Fatalf("parseConf(%q) has no path", s)
		}
		sql, n := numberParams(s, "?1")
		if _, again := numberParams(sql, "?1"); again != n {
			t.Fatalf("numberParams(%q) = %q has %d parameters, then %d", s, sql, n, again)
		}
	})
}
