package sqlite

import (
	"strings"
	"testing"

	"tabard/backends/conf"
	"tabard/backends/sqltable"
	"tabard/table"
)

// parseConf reads text as readConf reads a file.
func parseConf(text string) (source, error) {
	src := source{queries: sqltable.NewQueries(dialect())}
	err := conf.Parse("", text, src.set, src.finish)
	return src, err
}

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
	if src.path != "/etc/mail/smtp.sqlite" || src.queries.Own || src.queries.List(table.Source) == nil {
		t.Errorf("source = %+v", src)
	}
	for s, want := range map[table.Service]string{
		table.Alias:       "SELECT value FROM virtuals WHERE email=?1",
		table.Credentials: "SELECT email, password FROM credentials WHERE email=?1",
		table.RelayHost:   "SELECT url FROM r WHERE dom = ?1 OR dom = '*' || ?1",
	} {
		if q := src.queries.Of(s); q == nil || q.SQL != want {
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
		"dbpath /a\nquery_auth SELECT ?\n":       "2: query_auth: needs ?1 for the user and ?2",
		"dbpath /a\nfetch_auth SELECT 1\n":       `2: unknown key "fetch_auth"`,
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

func FuzzParseConf(f *testing.F) {
	f.Add("dbpath /a\nquery_alias SELECT a FROM b WHERE c = ?\n")
	f.Add("dbpath /a\nfetch_source SELECT 'x''?' -- [ /*\n")
	f.Fuzz(func(t *testing.T, s string) {
		src, err := parseConf(s)
		if err == nil && src.path == "" {
			t.Fatalf("parseConf(%q) has no path", s)
		}
	})
}
