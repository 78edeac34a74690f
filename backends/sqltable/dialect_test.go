package sqltable

import (
	"slices"
	"strings"
	"testing"
)

func sqlite() Dialect {
	return Dialect{Quotes: "`[", Mark: "?", Find: "instr", AnyBytes: true}
}

func postgres() Dialect {
	return Dialect{Escapes: true, Dollars: true, Nested: true, Numbered: true, Mark: "$", Fold: "lower", Find: "strpos"}
}

// show writes a parameter by the part that it has.
func show(p Part) string { return [...]string{"<key>", "<user>", "<domain>", "<password>"}[p] }

func TestParametersOfSQLite(t *testing.T) {
	for sql, want := range map[string]string{
		"a = ?":                        "a = <key>",
		"a = ?2 AND b = :name":         "a = <key> AND b = <key>",
		"a = @x AND b = $1":            "a = <key> AND b = <key>",
		"a = '?' AND b = \"?\"":        "a = '?' AND b = \"?\"",
		"a = 'it''s ?' -- ?\n AND b=?": "a = 'it''s ?' -- ?\n AND b=<key>",
		"[?] = ? /* ? */":              "[?] = <key> /* ? */",
		"a->'$.x' = ?; \n":             "a->'$.x' = <key>",
		"/* /* */ ? /* ?":              "/* /* */ <key> /* ?",
		"`?{key}` = {key}":             "`?{key}` = <key>",
		"'open ?":                      "'open ?",
		"a$1 = ?":                      "a$1 = <key>",
		"u = {user} AND d={domain}":    "u = <user> AND d=<domain>",
		"{key} '{user}' -- {domain}":   "<key> '{user}' -- {domain}",
		"{ key} {key {":                "{ key} {key {",
		"":                             "",
	} {
		got, err := sqlite().parse(sql, false)
		if text := got.with(show); err != nil || text != want {
			t.Errorf("%s\n%s, %v", sql, text, err)
		}
	}
}

func TestParametersOfPostgreSQL(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT a FROM t WHERE b = $1":              "SELECT a FROM t WHERE b = <key>",
		"SELECT $1, $1::text; \n":                   "SELECT <key>, <key>::text",
		"SELECT '$1', \"$1\", E'\\'$1', $1":         "SELECT '$1', \"$1\", E'\\'$1', <key>",
		"SELECT $$ $1 $$, $a$ $1 $$ $a$, $1":        "SELECT $$ $1 $$, $a$ $1 $$ $a$, <key>",
		"SELECT 'it''s $1' -- $1\n, $1 -- $1":       "SELECT 'it''s $1' -- $1\n, <key> -- $1",
		"SELECT /* $1 /* $1 */ $1 */ $1 /* $1":      "SELECT /* $1 /* $1 */ $1 */ <key> /* $1",
		"SELECT a$1, tab$1.b":                       "SELECT a$1, tab$1.b",
		"SELECT type'$1', e'$1', E, $1":             "SELECT type'$1', e'$1', E, <key>",
		"SELECT é$1, $1":                            "SELECT é$1, <key>",
		"SELECT ar[$1], x ? 'b', ':a', :b, @c, $":   "SELECT ar[<key>], x ? 'b', ':a', :b, @c, $",
		"SELECT '{user}'::text[], {user}||{domain}": "SELECT '{user}'::text[], <user>||<domain>",
		"SELECT $$ {key} $$, E'\\'{key}', {key}":    "SELECT $$ {key} $$, E'\\'{key}', <key>",
		"":                                          "",
	} {
		got, err := postgres().parse(sql, false)
		if text := got.with(show); err != nil || text != want {
			t.Errorf("%s\n%s, %v", sql, text, err)
		}
	}
}

func TestParametersOfAuth(t *testing.T) {
	for _, tt := range []struct {
		d         Dialect
		sql, want string
	}{
		{sqlite(), "n = ? AND p = ?", "n = <key> AND p = <password>"},
		{sqlite(), "p = ?2 AND n = ?1 OR n = ?1", "p = <password> AND n = <key> OR n = <key>"},
		{sqlite(), "n = ?1 AND p = ?", "n = <key> AND p = <password>"},
		{sqlite(), "p = :password AND n = @user", "p = <password> AND n = <key>"},
		{sqlite(), "u = {user} AND d = {domain} AND p = {password}", "u = <user> AND d = <domain> AND p = <password>"},
		{postgres(), "p = crypt($2, p) AND n = $1", "p = crypt(<password>, p) AND n = <key>"},
		{postgres(), "p = {password} AND n = {key}", "p = <password> AND n = <key>"},
	} {
		got, err := tt.d.parse(tt.sql, true)
		if text := got.with(show); err != nil || text != tt.want {
			t.Errorf("%s\n%s, %v", tt.sql, text, err)
		}
	}
}

func TestParametersRefused(t *testing.T) {
	for _, tt := range []struct {
		d    Dialect
		sql  string
		auth bool
		want string
	}{
		{postgres(), "SELECT $0", false, "parameter $0: only $1"},
		{postgres(), "SELECT $2", false, "parameter $2: only $1"},
		{postgres(), "SELECT $99999999999999999999", false, "only $1"},
		{postgres(), "SELECT $1, $2, $3", true, "parameter $3: only $1 is known, the user, and $2"},
		{postgres(), "SELECT {password}", false, "only query_auth has one"},
		{postgres(), "SELECT {User}", false, "unknown placeholder {User}; expected {key}, {user} or {domain}"},
		{postgres(), "SELECT {}", false, "unknown placeholder {}"},
		{postgres(), "SELECT{key}", false, "placeholder {key}: a blank is missing"},
		{sqlite(), "SELECT {key}2", false, "placeholder {key}: a blank is missing"},
		{sqlite(), "SELECT ?{user}", false, "parameter {user}: a blank is missing between"},
		{postgres(), "SELECT {key}{user}", false, "parameter {user}: a blank is missing between"},
		{sqlite(), "SELECT {1}", false, "unknown placeholder {1}"},
		{sqlite(), "SELECT ?, ?, ?", true, "parameter ?: only ?1"},
		{sqlite(), "SELECT ?1, ?3", true, "parameter ?3"},
		{sqlite(), "SELECT :name, :password", true, "parameter :name"},
		// SQLite itself would count ? as the second, or third.
		{sqlite(), "SELECT :password, ?", true, "parameter ?"},
	} {
		if _, err := tt.d.parse(tt.sql, tt.auth); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", tt.sql, err, tt.want)
		}
	}
}

// Whatever a statement holds, it is the same again with its parameters as they
// were.
func FuzzParse(f *testing.F) {
	f.Add("SELECT $1, $$a$1$$, E'\\'' -- $2\n/* /* */ $1 */ {user} '{domain}'")
	f.Add("SELECT ?1, [?], `x`, :a, '{key' {key}")
	f.Fuzz(func(t *testing.T, sql string) {
		for _, d := range []Dialect{sqlite(), postgres()} {
			first, err := d.parse(sql, false)
			if err != nil {
				continue
			}
			again := first.with(func(p Part) string {
				if p == Key {
					return d.Mark + "1"
				}
				return "{" + strings.Trim(show(p), "<>") + "}"
			})
			second, err := d.parse(again, false)
			if err != nil || !slices.Equal(first.texts, second.texts) || !slices.Equal(first.marks, second.marks) {
				t.Errorf("%q: %q, then %q, %v", sql, first, second, err)
			}
		}
	})
}
