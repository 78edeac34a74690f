package postgres

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT a FROM t WHERE b = $1":            "SELECT a FROM t WHERE b = <1>",
		"SELECT $1, $1::text; \n":                 "SELECT <1>, <1>::text",
		"SELECT '$1', \"$1\", E'\\'$1', $1":       "SELECT '$1', \"$1\", E'\\'$1', <1>",
		"SELECT $$ $1 $$, $a$ $1 $$ $a$, $1":      "SELECT $$ $1 $$, $a$ $1 $$ $a$, <1>",
		"SELECT 'it''s $1' -- $1\n, $1 -- $1":     "SELECT 'it''s $1' -- $1\n, <1> -- $1",
		"SELECT /* $1 /* $1 */ $1 */ $1 /* $1":    "SELECT /* $1 /* $1 */ $1 */ <1> /* $1",
		"SELECT a$1, tab$1.b, $12":                "SELECT a$1, tab$1.b, <12>",
		"SELECT type'$1', e'$1', E, $1":           "SELECT type'$1', e'$1', E, <1>",
		"SELECT $2 || $1":                         "SELECT <2> || <1>",
		"SELECT é$1, $1":                          "SELECT é$1, <1>",
		"SELECT ar[$1], x ? 'b', ':a', :b, @c, $": "SELECT ar[<1>], x ? 'b', ':a', :b, @c, $",
		"": "",
	} {
		got, err := parse(sql)
		if text := got.with(func(n int) string { return fmt.Sprintf("<%d>", n) }); err != nil || text != want {
			t.Errorf("%s\n%s, %v", sql, text, err)
		}
	}
	for _, sql := range []string{"SELECT $0", "SELECT $99999999999999999999"} {
		if _, err := parse(sql); err == nil {
			t.Errorf("%s is accepted", sql)
		}
	}
}

// Whatever a statement holds, it is the same again with its parameters as they
// were.
func FuzzParse(f *testing.F) {
	f.Add("SELECT $1, $$a$1$$, E'\\'' -- $2\n/* /* */ $1 */")
	f.Fuzz(func(t *testing.T, sql string) {
		got, err := parse(sql)
		if err != nil {
			return
		}
		again := got.with(func(n int) string { return fmt.Sprint("$", n) })
		second, err := parse(again)
		if err != nil || strings.Join(second.texts, "\x00") != strings.Join(got.texts, "\x00") {
			t.Errorf("%q: %q, then %q, %v", sql, got.texts, second.texts, err)
		}
	})
}
