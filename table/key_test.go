package table

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNormalKey(t *testing.T) {
	for _, tt := range []struct {
		s        Service
		in, want string
	}{
		{Alias, "User@Example.ORG", "user@example.org"}, {Auth, "User:PassWord", "User:PassWord"},
		{Regex, "Subject", "Subject"}, {Domain, "BÜCHER.Example", "bücher.example"}, {Domain, "A\xffB", "a\xffb"},
	} {
		if got, err := NormalKey(tt.s, tt.in); got != tt.want || err != nil {
			t.Errorf("NormalKey(%s, %q) = %q, %v", tt.s, tt.in, got, err)
		}
	}
	for _, bad := range []string{"a\x00", "a\r", "a\n", strings.Repeat("x", MaxKey+1)} {
		if _, err := NormalKey(Alias, bad); !errors.Is(err, ErrKey) {
			t.Errorf("NormalKey(%.10q): %v", bad, err)
		}
		if _, err := NormalKey(Auth, bad); !errors.Is(err, ErrKey) {
			t.Errorf("NormalKey(auth, %.10q): %v", bad, err)
		}
	}
}

func TestKeyLists(t *testing.T) {
	for name, tt := range map[string]struct{ got, want []string }{
		"alias":               {AliasKeys("user+tag", "+"), []string{"user+tag", "user"}},
		"alias without tag":   {AliasKeys("user", "+"), []string{"user"}},
		"alias, other delim":  {AliasKeys("user+tag-x", "-"), []string{"user+tag-x", "user+tag"}},
		"virtual":             {VirtualKeys("u+t", "d", "+"), []string{"u+t@d", "u@d", "u+t", "u", "@d", "@"}},
		"virtual without tag": {VirtualKeys("u", "d", "+"), []string{"u@d", "u", "@d", "@"}},
		"virtual bare":        {VirtualKeys("u1", "", "+"), []string{"u1@", "u1"}},
		"virtual bare, tag":   {VirtualKeys("u1+t", "", "+"), []string{"u1+t@", "u1@", "u1+t", "u1"}},
		"cert":                {CertNames("mx.example.org"), []string{"mx.example.org", "*.example.org"}},
		"cert, root dot":      {CertNames("mx.example.org."), []string{"mx.example.org", "*.example.org"}},
		"cert, wildcard":      {CertNames("*.example.org"), []string{"*.example.org"}},
		"cert, one label":     {CertNames("localhost"), []string{"localhost"}},
		"cert, none":          {CertNames(""), nil},
		"cert, IPv4":          {CertNames("192.0.2.1"), []string{"192.0.2.1"}},
		"cert, IPv6":          {CertNames("2001:db8::1"), []string{"2001:db8::1"}},
		"relay domain":        {RelayDomainKeys("a.b.example"), []string{"a.b.example", "*.b.example", "*"}},
		"relay literal":       {RelayDomainKeys("[192.0.2.1]"), []string{"[192.0.2.1]", "*"}},
		"relay none":          {RelayDomainKeys(""), []string{"*"}},
		"relay sender":        {RelaySenderKeys("u+t@d", "+"), []string{"u+t@d", "u@d", "@d", "*"}},
		"relay null sender":   {RelaySenderKeys("", "+"), []string{"@", "*"}},
		"domain":              {DomainCandidates("a.b.c"), []string{"a.b.c", "*.b.c", "*"}},
		"mailaddr":            {MailAddrCandidates("u+t@d", "+"), []string{"u+t@d", "u@d", "@d", "u+t", "u", "@"}},
		"mailaddr null":       {MailAddrCandidates("@", "+"), []string{"@"}},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	if got := UserKey("user+tag", "+"); got != "user" {
		t.Errorf("UserKey = %q", got)
	}
	if got := MailAddrKey(""); got != "@" {
		t.Errorf("MailAddrKey = %q", got)
	}
}

func TestAddrKey(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1", "2001:db8::1": "[2001:db8::1]", "::ffff:192.0.2.1": "192.0.2.1"} {
		if got := AddrKey(netip.MustParseAddr(in)); got != want {
			t.Errorf("AddrKey(%s) = %q", in, got)
		}
	}
}
