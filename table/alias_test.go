package table

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNodes(t *testing.T) {
	tests := []struct {
		name string
		row  Row
		want []Node
	}{
		{"user", Row{"alice"}, []Node{{NodeUser, 0, "alice"}}},
		{"list", Row{"alice, bob@example.org,,  carol "}, []Node{{NodeUser, 0, "alice"}, {NodeAddress, 0, "bob@example.org"}, {NodeUser, 0, "carol"}}},
		{"many rows", Row{"alice", "bob,carol"}, []Node{{NodeUser, 0, "alice"}, {NodeUser, 0, "bob"}, {NodeUser, 0, "carol"}}},
		{"error", Row{"error:550 5.1.1 Gone away"}, []Node{{NodeError, 550, "5.1.1 Gone away"}}},
		{"error, old form", Row{":error:451 Later"}, []Node{{NodeError, 451, "Later"}}},
		{"error among others", Row{"error:550 a\\, b, alice"}, []Node{{NodeError, 550, "a, b"}, {NodeUser, 0, "alice"}}},
		{"include", Row{":include:/etc/mail/list, include:/x"}, []Node{{NodeInclude, 0, "/etc/mail/list"}, {NodeInclude, 0, "/x"}}},
		{"pipe", Row{"|/usr/bin/procmail -t"}, []Node{{NodePipe, 0, "/usr/bin/procmail -t"}}},
		{"quoted pipe", Row{`"|/bin/cat a, b", x`}, []Node{{NodePipe, 0, "/bin/cat a, b"}, {NodeUser, 0, "x"}}},
		{"pipe with quotes inside", Row{`|/bin/cat "a, b" 'c,d', x`}, []Node{{NodePipe, 0, `/bin/cat "a, b" 'c,d'`}, {NodeUser, 0, "x"}}},
		{"file", Row{"/var/mail/archive"}, []Node{{NodeFile, 0, "/var/mail/archive"}}},
		{"escaped user", Row{`\root`}, []Node{{NodeUser, 0, "root"}}},
		{"apostrophe", Row{"o'brien@example.org, bob"}, []Node{{NodeAddress, 0, "o'brien@example.org"}, {NodeUser, 0, "bob"}}},
		{"tag", Row{"user+tag"}, []Node{{NodeUser, 0, "user+tag"}}},
		{"UTF-8", Row{"dörte@bücher.example"}, []Node{{NodeAddress, 0, "dörte@bücher.example"}}},
		{"odd address", Row{"a=b/c&d@example.org"}, []Node{{NodeAddress, 0, "a=b/c&d@example.org"}}},
	}
	for _, tt := range tests {
		got, err := ParseNodes(tt.row)
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.name, err, diff)
		}
	}
}

func TestParseNodesRefuses(t *testing.T) {
	for _, in := range []string{
		"", " , ", "a b", "error:", "error:350 x", "error:55 x", "error:5a0 x", "error:550", "error:550 -x", "error:550 \u00a0",
		"include:relative", "include:", "|", "| ", "@example.org", "user@", "a@b c", "a;b", "user@exa_mple", `"open`, `|cat "x`, `end\`,
		"a\x00b", "a\nb", "x\xff", strings.Repeat("x", maxNodeLen+1), `"a b"@c`, "$(id)@x.example",
	} {
		if got, err := ParseNodes(Row{in}); !errors.Is(err, ErrNode) {
			t.Errorf("ParseNodes(%.40q) = %v, %v", in, got, err)
		}
	}
	if _, err := ParseNodes(Row{strings.Repeat("a,", maxNodes+1)}); !errors.Is(err, ErrNode) {
		t.Errorf("endless list: %v", err)
	}
	if _, err := ParseNodes(nil); err == nil {
		t.Error("an answer of nothing accepted")
	}
}

func TestParseInclude(t *testing.T) {
	got, err := ParseInclude(strings.NewReader("# list\nalice, bob\n\n  carol@x.example\r\n"), 100)
	want := []Node{{NodeUser, 0, "alice"}, {NodeUser, 0, "bob"}, {NodeAddress, 0, "carol@x.example"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err = ParseInclude(strings.NewReader("a\nb\nc c\n"), 100); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("bad line: %v", err)
	}
	if _, err = ParseInclude(strings.NewReader("a\nb\nc\n"), 2); err == nil {
		t.Error("more elements than allowed accepted")
	}
}

func FuzzParseNodes(f *testing.F) {
	for _, s := range []string{"a, b@c", "error:550 x", `"|cat 'x'", y`, `:include:/a,/b`, `|a "b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		nodes, err := ParseNodes(Row{s})
		if err != nil {
			return
		}
		for _, n := range nodes {
			if n.Text == "" || strings.ContainsAny(n.Text, "\x00\r\n") {
				t.Fatalf("ParseNodes(%q) has the element %+v", s, n)
			}
			if n.Kind == NodeAddress || n.Kind == NodeUser {
				if again, err := ParseNode(n.Text); err != nil || again != n {
					t.Fatalf("ParseNode(%q) = %+v, %v; was %+v", n.Text, again, err, n)
				}
			}
		}
	})
}
