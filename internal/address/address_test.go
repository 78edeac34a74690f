package address

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in, local, domain, out string
	}{
		{"a@b.example", "a", "b.example", "a@b.example"},
		{"User+Tag@EXAMPLE.org", "User+Tag", "example.org", "User+Tag@example.org"},
		{`"a b"@x.example`, "a b", "x.example", `"a b"@x.example`},
		{`"a\"@b"@x.example`, `a"@b`, "x.example", `"a\"@b"@x.example`},
		{`"plain"@x.example`, "plain", "x.example", "plain@x.example"},
		{"a@[127.0.0.1]", "a", "[127.0.0.1]", "a@[127.0.0.1]"},
		{"a@[IPv6:::1]", "a", "[ipv6:::1]", "a@[ipv6:::1]"},
		{"postmaster", "postmaster", "", "postmaster"},
		{"dörte@bücher.example", "dörte", "bücher.example", "dörte@bücher.example"},
		{"a@_mail.example", "a", "_mail.example", "a@_mail.example"},
	}
	for _, tt := range tests {
		a, err := Parse(tt.in)
		if err != nil || a.Local != tt.local || a.Domain != tt.domain || a.String() != tt.out {
			t.Errorf("Parse(%q) = %+v (%q), %v", tt.in, a, a, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", "a", "@b", "a@", "a b@c", "a..b@c", ".a@c", "a.@c", `"a@c`, `"a"b@c`, "a@-b.c", "a@b-.c", "a@b..c",
		"a@[300.1.1.1]", "a@[1.2.3.4", "a@b c", "a@b;c", "a\r\n@b", "\"a\nb\"@c", "a@b\x00", "\xff@b.c",
		strings.Repeat("x", 241) + "@c", "a@" + strings.Repeat("x", 64), "a@" + strings.Repeat("x.", 128) + "x",
	} {
		if a, err := Parse(in); !errors.Is(err, ErrSyntax) {
			t.Errorf("Parse(%q) = %+v, %v; want a syntax error", in, a, err)
		}
	}
}

func TestSplitTag(t *testing.T) {
	tests := []struct{ in, delim, user, tag string }{
		{"user+tag", "+", "user", "tag"}, {"user+a+b", "+", "user", "a+b"}, {"user", "+", "user", ""},
		{"+tag", "+", "+tag", ""}, {"user-tag", "-", "user", "tag"}, {"user+tag", "", "user+tag", ""},
	}
	for _, tt := range tests {
		if user, tag := SplitTag(tt.in, tt.delim); user != tt.user || tag != tt.tag {
			t.Errorf("SplitTag(%q, %q) = %q, %q", tt.in, tt.delim, user, tag)
		}
	}
}

func TestToASCII(t *testing.T) {
	for in, want := range map[string]string{
		"Bücher.Example": "xn--bcher-kva.example", "EXAMPLE.org": "example.org", "[127.0.0.1]": "[127.0.0.1]",
	} {
		if got, err := ToASCII(in); got != want || err != nil {
			t.Errorf("ToASCII(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"\xff\xfe", "b\xfccher.example", "\ufffd.example"} {
		if got, err := ToASCII(in); !errors.Is(err, ErrSyntax) {
			t.Errorf("ToASCII(%q) = %q, %v", in, got, err)
		}
	}
}

func TestOneLine(t *testing.T) {
	tests := []struct {
		in   string
		max  int
		want string
	}{
		{"250 ok\r\nDATA", 100, "250 ok DATA"}, {"\r\nx\r\n", 100, "x"}, {"a\x00b\x1b[1mc", 100, "a?b?[1mc"},
		{"tab\there", 100, "tab here"}, {"ü\xff", 100, "ü?"}, {strings.Repeat("x", 50), 10, strings.Repeat("x", 7)},
		{"a\u2028b\u202ec", 100, "a?b?c"},
	}
	for _, tt := range tests {
		if got := OneLine(tt.in, tt.max); got != tt.want {
			t.Errorf("OneLine(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a@b.c", `"a b"@c`, "a@[::1]", "ü@ü.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(a.String())
		if err != nil || again != a {
			t.Fatalf("Parse(%q) = %+v, but its text %q gives %+v, %v", s, a, a.String(), again, err)
		}
		if strings.ContainsAny(a.String(), "\r\n\x00") {
			t.Fatalf("%q survives parsing", a.String())
		}
	})
}
