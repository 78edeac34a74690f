package ldap

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

func TestExpand(t *testing.T) {
	for _, tt := range []struct{ filter, key, want string }{
		{"(mail=%s)", "a@b", "(mail=a@b)"},
		{"mail=%u", "a@b", "(mail=a@b)"},
		{"(mail=%s)", "*)(uid=*", `(mail=\2a\29\28uid=\2a)`},
		{"(mail=%s)", `\2a`, `(mail=\5c2a)`},
		{"(mail=%s)", "ü\x00", `(mail=\c3\bc\00)`},
		{"(&(o=%h)(p=100%%)(mail=*@%d))", "x@y@z", "(&(o=t)(p=100%)(mail=*@z))"},
		{"(|(a=%l)(b=%l))", "x@y@z", "(|(a=x@y)(b=x@y))"},
		{"(!(a:caseExactMatch:=%s))", "k", "(!(a:caseExactMatch:=k))"},
		{"(& (a=%s) (b>=1))", "k", "(&(a=k)(b>=1))"},
		{"(memberOf=cn=%l,ou=g)", `a,b*@x`, `(memberOf=cn=a\5c,b\2a,ou=g)`},
		{"(:dn:2.4.8.10:=%s)", "k", "(:dn:2.4.8.10:=k)"},
		{"(mail=*@%d)", "nodomain", ""},
		{"(uid=%l)", "@domain", ""},
		{"(|(mail=%s)(dc=%D))", "a@b", "(|(mail=a@b))"},
		{"(|(mail=%s)(dc=%D))", "@b", "(|(mail=@b)(dc=b))"},
		{"(dc=%D)", "a@b", ""},
		{"(|(uid=%l)(&(a=b)(c=%l)))", "@b", ""},
		{"(mail=%s)", "", ""},
	} {
		f, err := parseFilter(tt.filter, "t")
		if err != nil {
			t.Errorf("%s: %v", tt.filter, err)
			continue
		}
		got, ok := f.expand(tt.key)
		sameEncoded(t, f, tt.key, got)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s for %q = %s, %v; want %s", tt.filter, tt.key, got, ok, tt.want)
		}
		if _, err := ldap.CompileFilter(got); ok && err != nil {
			t.Errorf("%s for %q: %v", tt.filter, tt.key, err)
		}
	}
}

func TestEncodeAny(t *testing.T) {
	for _, tt := range []struct {
		filter string
		keys   []string
		want   string
		n      int
	}{
		{"(mail=%s)", []string{"a"}, "(mail=a)", 1},
		{"(mail=%s)", []string{"a", "b"}, "(|(mail=a)(mail=b))", 2},
		{"(&(o=x)(mail=%s)(!(p=q)))", []string{"a", "b"}, "(&(|(mail=a)(mail=b))(o=x)(!(p=q)))", 2},
		{"(&(uid=%l)(mail=%s))", []string{"a@x", "@x"}, "(|(&(uid=a)(mail=a@x)))", 1},
		{"(&(o=x)(|(uid=%s)(mail=%s)))", []string{"*"}, `(&(|(uid=\2a)(mail=\2a))(o=x))`, 1},
		{"(&(o=x)(mail=*@%d))", []string{"a"}, "(&(o=x))", 0},
	} {
		f, err := parseFilter(tt.filter, "t")
		if err != nil {
			t.Fatal(err)
		}
		b, n, err := f.encodeAny(tt.keys)
		if err != nil || n != tt.n {
			t.Errorf("%s for %q: %d keys, %v; want %d", tt.filter, tt.keys, n, err, tt.n)
		}
		if n == 0 {
			continue
		}
		if got := decompile(t, b); got != tt.want {
			t.Errorf("%s for %q = %s, want %s", tt.filter, tt.keys, got, tt.want)
		}
	}
}

// sameEncoded holds what is sent for a key against the text of the filter.
func sameEncoded(t *testing.T, f *filter, key, text string) {
	t.Helper()
	e := encoder{}
	ok, err := f.root.encode(&e, key)
	if err != nil || ok != (text != "") {
		t.Fatalf("%q for %q: encoded %v, %v", text, key, ok, err)
	}
	if !ok {
		return
	}
	p, err := ldap.CompileFilter(text)
	if err != nil {
		t.Fatalf("%q for %q: %v", text, key, err)
	}
	got, err := ber.DecodePacketErr(e.b)
	if err != nil || !bytes.Equal(got.Bytes(), p.Bytes()) {
		t.Fatalf("%q for %q: encoded as % x, want % x; %v", text, key, e.b, p.Bytes(), err)
	}
}

// decompile reads an encoded filter.
func decompile(t *testing.T, b []byte) string {
	t.Helper()
	p, err := ber.DecodePacketErr(b)
	if err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	s, err := ldap.DecompileFilter(p)
	if err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	return s
}

func TestTemplate(t *testing.T) {
	dn, err := parseTemplate("uid=%s,ou=%h,dc=example", ldap.EscapeDN("a,b"))
	if err != nil {
		t.Fatal(err)
	}
	got, _ := dn.fill(`x,ou=admins+cn=y"<>#;\`, ldap.EscapeDN)
	parsed, err := ldap.ParseDN(got)
	if err != nil || len(parsed.RDNs) != 3 || parsed.RDNs[0].Attributes[0].Value != `x,ou=admins+cn=y"<>#;\` || parsed.RDNs[1].Attributes[0].Value != "a,b" {
		t.Errorf("%s: %v", got, err)
	}
	for _, bad := range []string{"%", "a%", "%x", "%S"} {
		if _, err := parseTemplate(bad, "t"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, tt := range []struct{ template, value, want string }{
		{"%s", "V", "V"}, {"smtp:%s", "SMTP:a@b", "a@b"}, {"smtp:%s", "sip:a@b", ""}, {"%s@x", "a@X", "a"}, {"<%s>", "<>", ""},
	} {
		tpl, err := parseTemplate(tt.template, "t")
		if err != nil || !tpl.invertible() {
			t.Fatalf("%s: %v", tt.template, err)
		}
		if got, ok := tpl.invert(tt.value); ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%s of %q = %q, %v; want %q", tt.template, tt.value, got, ok, tt.want)
		}
	}
}

func TestTelling(t *testing.T) {
	entry := map[string][]string{"uid": {"Bob"}, "mail": {"bob@example.org", "smtp:x@y"}, "st": {"on"}}
	values := func(a string) []string { return entry[a] }
	for _, tt := range []struct {
		filter    string
		yes, no   string
		cannotTel bool
	}{
		{filter: "(uid=%s)", yes: "bob", no: "bo"},
		{filter: "(&(objectClass=x)(!(a=b))(uid=%s))", yes: "bob", no: "bo"},
		{filter: "(&(x:1.2:=2)(|(uid=%s)(mail=%s)))", yes: "bob@example.org", no: "x@y"},
		{filter: "(mail=smtp:%s)", yes: "x@y", no: "bob@example.org"},
		{filter: "(mail=*@%s)", yes: "example.org", no: "ample.org"},
		{filter: "(|(uid=%s)(&(st=on)(mail=%s)))", yes: "bob@example.org", no: "on"},
		{filter: "(|(uid=%s)(&(st=off)(mail=%s)))", yes: "bob", no: "bob@example.org"},
		{filter: `(mail=smtp\3a%s)`, yes: "x@y", no: "y"},
		{filter: "(!(uid=%s))", cannotTel: true},
		{filter: "(uid~=%s)", cannotTel: true},
		{filter: "(|(uid=%s)(!(st=on)))", cannotTel: true},
		{filter: "(memberOf:1.2.840.113556.1.4.1941:=cn=%s,dc=x)", cannotTel: true},
	} {
		f, err := parseFilter(tt.filter, "t")
		if err != nil {
			t.Fatalf("%s: %v", tt.filter, err)
		}
		if (f.tell == nil) != tt.cannotTel {
			t.Errorf("%s: tell = %v", tt.filter, f.tell)
		}
		if f.tell == nil {
			continue
		}
		if ok, _ := f.tell.holds(tt.yes, values); !ok {
			t.Errorf("%s does not fit %q", tt.filter, tt.yes)
		}
		if ok, _ := f.tell.holds(tt.no, values); ok {
			t.Errorf("%s fits %q", tt.filter, tt.no)
		}
	}
}

func TestAny(t *testing.T) {
	for in, want := range map[string]string{
		"(&(objectClass=x)(|(uid=%s)(mail=smtp:%s)))": "(&(objectClass=x)(|(uid=*)(mail=*)))",
		"(!(uid=%s))": "(objectClass=*)",
	} {
		f, err := parseFilter(in, "t")
		if err != nil || f.any() != want {
			t.Errorf("%s: %s, %v; want %s", in, f.any(), err, want)
		}
	}
}

func TestParseRange(t *testing.T) {
	for in, want := range map[string]struct {
		name string
		high int
		ok   bool
	}{
		"member;range=0-1499": {"member", 1499, true}, "member;range=1500-*": {"member", -1, true},
		"member": {"member", 0, false}, "cn;lang-de": {"cn;lang-de", 0, false},
	} {
		name, high, ok := parseRange(in)
		if name != want.name || high != want.high || ok != want.ok {
			t.Errorf("%s = %s, %d, %v", in, name, high, ok)
		}
	}
}

func TestTypeNames(t *testing.T) {
	for def, want := range map[string][]string{
		"( 2.5.4.3 NAME ( 'cn' 'commonName' ) DESC 'x' SUP name )": {"2.5.4.3", "cn", "commonName"},
		"( 0.9.2342 NAME 'uid' EQUALITY x )":                       {"0.9.2342", "uid"},
		"(1.2 NAME('a' 'b'))":                                      {"1.2", "a", "b"},
		"":                                                         nil,
	} {
		if got := typeNames(def); !slices.Equal(got, want) {
			t.Errorf("%s = %q", def, got)
		}
	}
}

func TestFrame(t *testing.T) {
	ok := []byte{0x30, 3, 1, 1, 1, 0x30, 0x81, 2, 9, 9, 0x30, 0x84, 0, 0, 0, 1, 7, 0x30, 0}
	for step := 1; step <= len(ok); step++ {
		var f frame
		for b := range slices.Chunk(ok, step) {
			if !f.feed(b) {
				t.Fatalf("step %d: refused", step)
			}
		}
		if f.rest != 0 || f.head {
			t.Errorf("step %d: %+v", step, f)
		}
	}
	for _, bad := range [][]byte{{0x31}, {0x30, 0x80}, {0x30, 0x84, 0x7f, 0, 0, 0}, {0x30, 0x89}, {0x30, 0x88, 0xff, 0xff, 0xff, 0xff}} {
		var f frame
		if f.feed(bad) {
			t.Errorf("% x is taken", bad)
		}
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add("url ldap://a\nbasedn dc=x\nalias_filter (&(a=%s)(|(b=*%d)(!(c~=x))))\nalias_attributes m\n", "k@d")
	f.Add("url ldapi:///\nauth bind\nauth_dn uid=%l,dc=%h\n", `*)(\`)
	f.Fuzz(func(t *testing.T, text, key string) {
		set, err := parseConf(text, "t")
		if err != nil {
			return
		}
		for _, q := range set.queries() {
			s, ok := q.filter.expand(key)
			if !ok {
				continue
			}
			sameEncoded(t, q.filter, key, s)
			// A key adds no parentheses: the filter has the same shape for any.
			if x, ok := q.filter.expand("x@y"); ok && strings.Contains(key, "@") && key[0] != '@' && !strings.HasSuffix(key, "@") && strings.Count(x, "(") != strings.Count(s, "(") {
				t.Fatalf("%q and %q differ", s, x)
			}
			if q.filter.tell != nil {
				q.filter.tell.holds(key, func(string) []string { return []string{key, ""} })
			}
			if _, err := ldap.CompileFilter(q.filter.any()); err != nil {
				t.Fatalf("any %q: %v", q.filter.any(), err)
			}
		}
	})
}

func FuzzParseURL(f *testing.F) {
	f.Add("ldap://a,b:1/dc=x??sub?(a=b)?!x-starttls,bindname=cn=x")
	f.Fuzz(func(t *testing.T, text string) {
		if set, err := parseURL(text, "t"); err == nil && len(set.servers) == 0 {
			t.Fatalf("%q has no server", text)
		}
	})
}
