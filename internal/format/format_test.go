package format

import (
	"errors"
	"path"
	"strings"
	"testing"

	"tabard/internal/address"
)

func values() Values {
	return Values{
		Sender: address.Address{Local: "Bob+Lists", Domain: "sender.example"},
		Rcpt:   address.Address{Local: "info+x", Domain: "example.org"},
		Dest:   address.Address{Local: "alice+tag", Domain: "example.org"},
		User:   "alice", Home: "/home/alice", Delim: "+",
	}
}

func TestExpand(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain", "plain"},
		{"100%", "100%"},
		{"%%{dest}", "%{dest}"},
		{"%x", "%x"},
		{"%{sender}", "Bob+Lists@sender.example"},
		{"%{sender.user} %{sender.domain}", "Bob+Lists sender.example"},
		{"%{rcpt} %{rcpt.user} %{rcpt.domain}", "info+x@example.org info+x example.org"},
		{"%{dest} %{dest.user} %{dest.domain}", "alice+tag@example.org alice+tag example.org"},
		{"%{Dest.User}", "alice+tag"},
		{"%{user.username} %{user.directory}", "alice /home/alice"},
		{"%{mbox.from}", "Bob+Lists@sender.example"},
		{"~/Maildir", "/home/alice/Maildir"},
		{"x~/Maildir", "x~/Maildir"},
		{"%{sender:lowercase}", "bob+lists@sender.example"},
		{"%{sender:uppercase}", "BOB+LISTS@SENDER.EXAMPLE"},
		{"%{sender:strip}", "Bob@sender.example"},
		{"%{sender.user:strip|lowercase}", "bob"},
		{"%{user.username[0]}", "a"},
		{"%{user.username[1]}", "l"},
		{"%{user.username[-1]}", "e"},
		{"%{user.username[-2]}", "c"},
		{"%{user.username[0:1]}", "al"},
		{"%{user.username[1:]}", "lice"},
		{"%{user.username[:1]}", "al"},
		{"%{user.username[:]}", "alice"},
		{"%{user.username[0:-1]}", "alic"},
		{"%{user.username[-3:]}", "ice"},
		{"%{user.username[2:100]}", "ice"},
		{"%{user.username[0]:uppercase}", "A"},
		{"/var/mail/%{dest.domain}/%{dest.user:strip}", "/var/mail/example.org/alice"},
	}
	for _, tt := range tests {
		for _, mode := range []Mode{Command, Path} {
			got, err := Expand(tt.in, mode, values())
			if got != tt.want || err != nil {
				t.Errorf("Expand(%q, %d) = %q, %v; want %q", tt.in, mode, got, err, tt.want)
			}
		}
	}
}

func TestExpandNullSender(t *testing.T) {
	v := values()
	v.Sender = address.Address{}
	if got, err := Expand("<%{sender}> %{mbox.from} %{sender.user[0]}", Command, v); got != "<> MAILER-DAEMON " || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestExpandUnsafe(t *testing.T) {
	tests := []struct {
		mode      Mode
		in, local string
		want      string
	}{
		{Command, "mda %{dest.user}", "a;rm -rf $HOME`id`|sh&", "mda a:rm:-rf::HOME:id::sh:"},
		{Command, "mda %{dest.user:raw}", "a$b`c|d&e!f", "mda a$b`c|d&e!f"},
		{Command, "mda %{dest.user:raw}", "a;b c\"d(e)<f>\\", "mda a:b:c:d:e::f::"},
		{Command, "mda %{dest.user}", "a\nb\x00c\u2028", "mda a:b:c:"},
		{Command, "mda %{dest.user}", "dörte/x^y=z", "mda dörte/x^y=z"},
		{Path, "/m/%{dest.user}", "../../etc/passwd", "/m/:.:..:etc:passwd"},
		{Path, "/m/%{dest.user:raw}", "a/../b", "/m/a:..:b"},
		{Path, "/m/%{dest.user}", ".ssh", "/m/:ssh"},
		{Path, "/m/%{dest.user}", "..", "/m/:."},
		{Path, "/m/.%{dest.user}", "junk", "/m/.junk"},
		{Path, "/m/%{dest.user:raw}", "it's~me", "/m/it's~me"},
		{Path, "/m/%{dest.user}", "it's~me", "/m/it:s:me"},
		{Path, "/m/%{dest.user}", "a\x00b\nc", "/m/a:b:c"},
	}
	for _, tt := range tests {
		v := values()
		v.Dest.Local = tt.local
		if got, err := Expand(tt.in, tt.mode, v); got != tt.want || err != nil {
			t.Errorf("Expand(%q) of %q = %q, %v; want %q", tt.in, tt.local, got, err, tt.want)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	tests := []struct{ in, local, domain string }{
		{"/m/.%{dest.user}", ".", "x.example"},
		{"/m/.%{dest.user}/x", ".", "x.example"},
		{"/m/%{dest.domain}/%{dest.user}", "alice", ""},
		{"/m/%{dest.user[3]}", "bob", "x.example"},
		{"/m/%{dest.user[-4]}", "bob", "x.example"},
		{"/m/%{dest.user[2:1]}", "bob", "x.example"},
		{"/m/%{mda}", "bob", "x.example"},
		{"/" + strings.Repeat("%{dest.user}", 100), strings.Repeat("x", 100), "x.example"},
	}
	for _, tt := range tests {
		v := values()
		v.Dest = address.Address{Local: tt.local, Domain: tt.domain}
		if got, err := Expand(tt.in, Path, v); !errors.Is(err, ErrValue) {
			t.Errorf("Expand(%q) = %q, %v; want ErrValue", tt.in, got, err)
		}
	}
	if got, err := Expand("~/Maildir", Path, Values{User: "x"}); !errors.Is(err, ErrValue) {
		t.Errorf("no home: %q, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"%{", "%{}", "%{nosuch}", "%{dest.nosuch}", "%{user}", "%{user.x}", "%{mbox}", "%{mda.x}", "%{dest", "%{dest[}",
		"%{dest]0[}", "%{dest[]}", "%{dest[x]}", "%{dest[0:y]}", "%{dest[0]x}", "%{dest:}", "%{dest:nosuch}",
		"%{dest:lowercase|}", "%{dest[99999999999]}", "%{dest.user.x}",
	} {
		if _, err := Parse(in); !errors.Is(err, ErrSyntax) {
			t.Errorf("Parse(%q) = %v, want ErrSyntax", in, err)
		}
	}
}

func TestWrapper(t *testing.T) {
	v := values()
	v.MDA = "mail.lda -f '%{x}'"
	if got, err := Expand("nice %{mda}", Command, v); got != "nice mail.lda -f '%{x}'" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRaw(t *testing.T) {
	for in, want := range map[string]bool{"x %{dest}": false, "x %{dest:raw}": true, "%{dest[0]:lowercase|RAW}": true} {
		tpl, err := Parse(in)
		if err != nil || tpl.Raw() != want {
			t.Errorf("Raw(%q) != %v (%v)", in, want, err)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("/m/%{dest.domain}/%{dest.user[0:-1]:lowercase|strip}", "a/../b", "x.example")
	f.Add("~/%{sender}%%", "..", "..")
	f.Fuzz(func(t *testing.T, text, local, domain string) {
		tpl, err := Parse(text)
		if err != nil {
			return
		}
		v := values()
		v.Dest = address.Address{Local: local, Domain: domain}
		v.Sender, v.Rcpt, v.User = v.Dest, v.Dest, local
		clean, cleanErr := tpl.Expand(Path, values())
		got, err := tpl.Expand(Path, v)
		if err != nil || cleanErr != nil {
			return
		}
		if strings.Count(got, "/") != strings.Count(clean, "/") {
			t.Fatalf("%q: values change the depth: %q, %q", text, got, clean)
		}
		if path.Clean(clean) == clean && path.Clean(got) != got {
			t.Fatalf("%q: %q is not a clean path", text, got)
		}
	})
}

func BenchmarkExpand(b *testing.B) {
	tpl, err := Parse("/var/mail/%{dest.domain}/%{dest.user:strip|lowercase}")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := tpl.Expand(Path, values()); err != nil {
			b.Fatal(err)
		}
	}
}
