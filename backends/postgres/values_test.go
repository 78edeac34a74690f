package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

func TestSplitArray(t *testing.T) {
	for in, want := range map[string][]string{
		"{}":                        nil,
		"{a}":                       {"a"},
		`{a,"b, c",NULL,"NULL",""}`: {"a", "b, c", "NULL", ""},
		`{"q\"x\\y","{}"}`:          {`q"x\y`, "{}"},
		"[0:1]={a,b}":               {"a", "b"},
		"{alice@a.example,=x}":      {"alice@a.example", "=x"},
		"{null}":                    {"null"},
		"{\"|/bin/x \\\"a=b\\\"\"}": {`|/bin/x "a=b"`},
	} {
		if got, err := splitArray(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "{", "a", "{{a},{b}}", `{"a}`, `{"a\`, `{"a"b}`, `{a"b"}`} {
		if got, err := splitArray(in); err == nil {
			t.Errorf("%q reads as %q", in, got)
		}
	}
}

func FuzzSplitArray(f *testing.F) {
	f.Add(`{a,"b, c",NULL,"q\"x"}`)
	f.Fuzz(func(t *testing.T, in string) {
		all, err := splitArray(in)
		if err != nil {
			return
		}
		quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
		var b strings.Builder
		for i, s := range all {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(`"` + quote.Replace(s) + `"`)
		}
		if again, err := splitArray("{" + b.String() + "}"); err != nil || !slices.Equal(all, again) {
			t.Errorf("%q: %q, then %q, %v", in, all, again, err)
		}
	})
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		oid  uint32
		in   string
		want string
	}{
		{pgtype.BoolOID, "t", "1"}, {pgtype.BoolOID, "f", "0"},
		{pgtype.ByteaOID, `\x2d2d20c3a4`, "-- ä"}, {pgtype.ByteaOID, `a\\b\303\244`, `a\bä`},
		{pgtype.Int8OID, "-5", "-5"}, {pgtype.TextOID, "{a}", "{a}"},
	} {
		if got, err := text(tt.oid, tt.in); err != nil || len(got) != 1 || got[0] != tt.want {
			t.Errorf("%d %s: %q, %v", tt.oid, tt.in, got, err)
		}
	}
	for _, in := range []string{`\x2`, `\xzz`, `a\9`, `\`, `\18`, `\189`} {
		if got, err := text(pgtype.ByteaOID, in); err == nil {
			t.Errorf("bytea %s: %q", in, got)
		}
	}
}
