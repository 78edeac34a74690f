package file

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/config"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		mapping  bool
		want     []config.KeyVal
	}{
		{"list", "a.example\n  b.example\t\n\n# comment\n\t# another\nc.example", false,
			[]config.KeyVal{{Key: "a.example"}, {Key: "b.example"}, {Key: "c.example"}}},
		{"mapping", "root: admin, bob\nx\ty z\nk v", true,
			[]config.KeyVal{{Key: "root", Value: "admin, bob"}, {Key: "x", Value: "y z"}, {Key: "k", Value: "v"}}},
		{"one separator is eaten", "k : v\n", true, []config.KeyVal{{Key: "k", Value: ": v"}}},
		{"colon and blanks", "k:   v\n", true, []config.KeyVal{{Key: "k", Value: "v"}}},
		{"@list", "# @list\nsmtp://a:25\nkey value\n", false, []config.KeyVal{{Key: "smtp://a:25"}, {Key: "key value"}}},
		{"@list after the first entry", "k v\n# @list\nx y\n", true, []config.KeyVal{{Key: "k", Value: "v"}, {Key: "x", Value: "y"}}},
		{"#@list", "#@list\na b\n", false, []config.KeyVal{{Key: "a b"}}},
		{"not quite @list", "# @list of things\na b\n", true, []config.KeyVal{{Key: "a", Value: "b"}}},
		{"a list keeps whole lines", "first\nsecond entry: here\n", false, []config.KeyVal{{Key: "first"}, {Key: "second entry: here"}}},
		{"IPv6 keys", "[2001:db8::1] mx.example\n[::1]: lo.example\n", true,
			[]config.KeyVal{{Key: "[2001:db8::1]", Value: "mx.example"}, {Key: "[::1]", Value: "lo.example"}}},
		{"IPv6 list", "[2001:db8::1]\n[::1]\n", false, []config.KeyVal{{Key: "[2001:db8::1]"}, {Key: "[::1]"}}},
		{"empty", "\n# nothing\n", true, nil},
		{"CRLF", "k v\r\nx y\r\n", true, []config.KeyVal{{Key: "k", Value: "v"}, {Key: "x", Value: "y"}}},
		{"quoted keys", "\"email:a@example.org\" alice\n\"dn:CN=B C\":\tbob\n\"x\"@example.org carol\n", true, []config.KeyVal{
			{Key: "email:a@example.org", Value: "alice"}, {Key: "dn:CN=B C", Value: "bob"}, {Key: `"x"@example.org`, Value: "carol"}}},
		{"quotes in a list", "\"a\"\n\"b c\" d\n", false, []config.KeyVal{{Key: `"a"`}, {Key: `"b c" d`}}},
		{"@domain key", "@example.org catchall\n", true, []config.KeyVal{{Key: "@example.org", Value: "catchall"}}},
	}
	for _, tt := range tests {
		c, err := parse(strings.NewReader(tt.in))
		if err != nil || c.mapping != tt.mapping {
			t.Errorf("%s: mapping %v, %v", tt.name, c.mapping, err)
		}
		if diff := cmp.Diff(tt.want, c.pairs); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ in, want string }{
		{"k v\nlonely\n", `line 2: key "lonely" has no value`},
		{"k v\nlonely:\n", `line 2: key "lonely" has no value`},
		{"[::1 x\n", "line 1: key"},
		{": v\n", "line 1: value without a key"},
		{"a b\nc \x00d\n", "line 2: NUL"},
		{"k v\n" + strings.Repeat("x", maxLine+1), "line 2: "},
	}
	for _, tt := range tests {
		if _, err := parse(strings.NewReader(tt.in)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("parse(%.20q): %v; want %s", tt.in, err, tt.want)
		}
	}
}

// endless is a file without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '#'
	}
	p[0] = '\n'
	return len(p), nil
}

func TestParseIsBounded(t *testing.T) {
	if _, err := parse(endless{}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("endless file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a b\n", "# @list\nx\n", "[::1] y\n", "k : v"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parse(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, p := range c.pairs {
			if p.Key == "" || c.mapping == (p.Value == "") {
				t.Fatalf("parse(%q) has the entry %+v, mapping %v", s, p, c.mapping)
			}
		}
	})
}
