package table

import (
	"strings"
	"testing"
)

func TestMatchDomain(t *testing.T) {
	for _, tt := range []struct {
		domain, pattern string
		want            bool
	}{
		{"example.org", "example.org", true}, {"EXAMPLE.org", "Example.ORG", true}, {"example.org", "example.com", false},
		{"a.example.org", "*.example.org", true}, {"example.org", "*.example.org", false}, {"a.b.example.org", "*.example.org", false},
		{"anything.at.all", "*", true}, {"", "*", false}, {"", "", true}, {"x", "", false},
		{"mail1.example.org", "mail*.example.org", true}, {"web.example.org", "mail*.example.org", false},
		{"a.b.c", "*.*.c", true}, {"mailx", "mail*", true}, {"mail", "mail*", false}, {"example.org", "*.org", true},
		{"a.example.org", "**.example.org", true}, {"aa.x", "*a.x", false},
	} {
		if got := MatchDomain(tt.domain, tt.pattern); got != tt.want {
			t.Errorf("MatchDomain(%q, %q) = %v", tt.domain, tt.pattern, got)
		}
	}
}

func TestMailPattern(t *testing.T) {
	for _, tt := range []struct {
		entry, addr string
		want        bool
	}{
		{"bob", "Bob+tag@any.example", true}, {"bob", "bobby@any.example", false}, {"@", "@", true}, {"@", "x@y", true},
		{"@", "", true}, {"@example.org", "x@EXAMPLE.org", true}, {"@example.org", "@", false}, {"@*.example.org", "x@a.example.org", true},
		{"al+t@z.example", "al+t@z.example", true}, {"al+t@z.example", "al@z.example", false}, {"al@z.example", "al+t@z.example", true},
		{"a@b@c", "a@b@c", true}, {"bob", "@", false}, {"bob@", "bob@x.example", true},
	} {
		if got := ParseMailPattern(tt.entry).Matches(tt.addr, "+"); got != tt.want {
			t.Errorf("%q matches %q = %v", tt.entry, tt.addr, got)
		}
	}
	if ParseMailPattern("bob").Matches("bob+x@y", "-") {
		t.Error("a tag is cut at a delimiter that is not configured")
	}
}

func TestNetwork(t *testing.T) {
	for _, tt := range []struct {
		entry, key string
		want       bool
	}{
		{"10/8", "10.1.2.3", true}, {"10/8", "11.0.0.1", false}, {"192.168/16", "192.168.9.9", true}, {"192.0.2.7", "192.0.2.7", true},
		{"192.0.2.7", "192.0.2.8", false}, {"[2001:db8::]/32", "[2001:db8::5]", true}, {"2001:db8::/32", "2001:db8::5", true},
		{"IPv6:2001:db8::/32", "[IPv6:2001:db8::5]", true}, {"::/0", "[fe80::1%eth0]", true}, {"::/0", "10.0.0.1", false},
		{"0.0.0.0/0", "[::1]", false}, {"0/0", "1.2.3.4", true}, {"local", "LOCAL", true}, {"local", "127.0.0.1", false}, {"0.0.0.0/0", "local", false},
		{"10.1.2.3/8", "10.200.0.1", true}, {"::ffff:10.0.0.1", "10.0.0.1", true}, {"10.0.0.0/8", "[::ffff:10.0.0.1]", true},
	} {
		n, err := ParseNetAddr(tt.entry)
		if err != nil || n.Contains(tt.key) != tt.want {
			t.Errorf("%q contains %q = %v, %v", tt.entry, tt.key, !tt.want, err)
		}
	}
	for _, bad := range []string{"", "10", "10.0.0", "10/33", "10/-1", "10/+8", "::/129", "10./8", "/8", "a.b.c.d", "[::1", "1.2.3.4.5/8", "ipv6:10.0.0.1", "256/8", "10/8/8"} {
		if n, err := ParseNetAddr(bad); err == nil {
			t.Errorf("ParseNetAddr(%q) = %+v", bad, n)
		}
	}
}

func TestCompileRegex(t *testing.T) {
	for _, tt := range []struct {
		pattern, subject string
		want             bool
	}{
		{"^ABC", "ABC@x", true}, {"^ABC", "abc@x", false}, {"(?i)^ABC", "abc@x", true}, {"[[:upper:]]", "abc", false}, {"[[:upper:]]", "aBc", true},
		{`[\.]x`, `\x`, true}, {`[\.]x`, `.x`, true}, {`a\.b`, "a.b", true}, {`a\.b`, "axb", false}, {"[]]", "]", true}, {"[^]]", "]", false},
		{`[[:digit:]\]`, `\`, true}, {"(a|b){2}$", "xab", true}, {`\W`, "a!", true},
	} {
		re, err := CompileRegex(tt.pattern)
		if err != nil || re.MatchString(tt.subject) != tt.want {
			t.Errorf("%q on %q: want %v, %v", tt.pattern, tt.subject, tt.want, err)
		}
	}
	for _, bad := range []string{"(", "[a", "*a", "a{2,1}", "a\nb", `\`, `(\1)`} {
		if _, err := CompileRegex(bad); err == nil {
			t.Errorf("%q compiles", bad)
		}
	}
}

// The prepared matchers find exactly what walking the entries finds.
func FuzzMatchers(f *testing.F) {
	f.Add("*.example.org\nbob\n@x.example\nal+t@z", "bob+t@x.example")
	f.Add("10/8\nlocal\n[::1]", "[::1]")
	f.Fuzz(func(t *testing.T, list, key string) {
		entries := strings.Split(list, "\n")
		wantDomain, wantMail := false, false
		for _, e := range entries {
			wantDomain = wantDomain || MatchDomain(key, e)
			wantMail = wantMail || ParseMailPattern(e).Matches(key, "+")
		}
		for s, want := range map[Service]bool{Domain: wantDomain, MailAddr: wantMail} {
			m, err := NewMatcher(s, entries, "+")
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Match(key); got != want {
				t.Fatalf("%s matcher of %q on %q = %v", s, entries, key, got)
			}
		}
		wantNet := false
		m, err := NewMatcher(NetAddr, entries, "+")
		if err != nil {
			return
		}
		for _, e := range entries {
			n, _ := ParseNetAddr(e)
			wantNet = wantNet || n.Contains(key)
		}
		if got := m.Match(key); got != wantNet {
			t.Fatalf("netaddr matcher of %q on %q = %v", entries, key, got)
		}
	})
}

func FuzzCompileRegex(f *testing.F) {
	for _, s := range []string{`[\.]`, "[[:alpha:]", "(?i)a{2}", `[^]\]`, `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if re, err := CompileRegex(s); err == nil {
			re.MatchString(s)
		}
	})
}
