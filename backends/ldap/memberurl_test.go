package ldap

import (
	"fmt"
	"strings"
	"testing"

	"tabard/internal/ldaptest"
	"tabard/table"
)

// urlGroups is a directory with people and groups by URL.
func urlGroups(t *testing.T) *ldaptest.Server {
	t.Helper()
	s := directory(t, ldaptest.Options{Schemas: []string{"suite.schema", "dynamic.schema"}})
	var b strings.Builder
	b.WriteString("dn: ou=people,dc=example,dc=org\nobjectClass: organizationalUnit\n\ndn: ou=lists,dc=example,dc=org\nobjectClass: organizationalUnit\n\n")
	for _, p := range []struct{ uid, city string }{{"alice", "Bonn"}, {"bob", "Bonn"}, {"carol", "Köln (Süd)"}} {
		fmt.Fprintf(&b, "dn: uid=%s,ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: %s\ncn: p\nsn: p\nl: %s\nmail: %s@example.org\nmail: %s@old.example\n\n", p.uid, p.uid, p.city, p.uid, p.uid)
	}
	for _, g := range [][2]string{
		{"bonn", "memberURL: ldap:///ou=people,dc=example,dc=org??sub?(l=Bonn)"},
		{"koeln", "mgrpDeliverTo: ldap:///ou=people,dc=example,dc=org??one?(l=K%C3%B6ln%20%5c28S%C3%BCd%5c29)"},
		{"names", "memberURL: ldap:///ou=people,dc=example,dc=org?uid?sub?(l=Bonn)"},
		{"cities", "memberURL: ldap:///ou=lists,dc=example,dc=org??one?(%7C(cn=bonn)(cn=koeln)(cn=cities))\nmember: uid=alice,ou=people,dc=example,dc=org"},
		{"nobody", "memberURL: ldap:///ou=people,dc=example,dc=org??sub?(l=Rom)"},
		{"twice", "memberURL: ldap:///ou=people,dc=example,dc=org??sub?(uid=bob)\nmemberURL: ldap:///ou=people,dc=example,dc=org??one?(l=Bonn)"},
		{"one", "memberURL: ldap:///uid=bob,ou=people,dc=example,dc=org"},
		{"foreign", "memberURL: ldap://evil.example/ou=people,dc=example,dc=org??sub?"},
		{"web", "memberURL: http://www.example/"},
		{"above", "memberURL: ldap:///dc=org??sub?(uid=*)"},
		{"secret", "memberURL: ldap:///ou=people,dc=example,dc=org?userPassword?sub?"},
		{"broken", "memberURL: ldap:///ou=people,dc=example,dc=org??sub?(uid=a))(%7C(uid=*)"},
		{"critical", "memberURL: ldap:///ou=people,dc=example,dc=org??sub??a=b,!x-scan"},
		{"gone", "memberURL: ldap:///ou=left,dc=example,dc=org??sub?"},
	} {
		fmt.Fprintf(&b, "dn: cn=%s,ou=lists,dc=example,dc=org\nobjectClass: groupOfURLs\ncn: %s\n%s\n\n", g[0], g[0], g[1])
	}
	load(t, s, b.String())
	return s
}

const urlConf = `basedn dc=example,dc=org
alias_filter (&(objectClass=groupOfURLs)(cn=%s))
alias_deref member
alias_member_url memberURL mgrpDeliverTo
`

func TestGroupsByURL(t *testing.T) {
	s := urlGroups(t)
	const a, b, c = "alice@example.org alice@old.example", "bob@example.org bob@old.example", "carol@example.org carol@old.example"
	for _, tt := range []struct{ conf, key, want string }{
		{"", "bonn", a + " " + b},
		{"", "koeln", c},
		{"alias_deref_attributes mail, UID", "names", "alice bob"},
		{"", "cities", a + " " + b + " " + c},
		{"", "nobody", "none"},
		{"", "twice", a + " " + b},
		{"", "one", b},
		{"alias_deref_filter (uid=bob)", "bonn", b},
		{"", "foreign", `none of the table's servers`},
		{"", "web", `"http://www.example/" is no ldap://`},
		{"", "above", `base "dc=org" is not below "dc=example,dc=org" (basedn)`},
		{"", "secret", "attribute userPassword is none of alias_deref_attributes"},
		{"", "broken", "is not a filter"},
		{"", "critical", `extension "!x-scan" is not known`},
		{"", "gone", "No Such Object"},
		{"alias_deref_limit 2", "bonn", "more than 2 members (alias_deref_limit)"},
		{"alias_deref_limit 3", "bonn", a + " " + b}, // and its URL
		{"alias_deref_depth 1", "cities", "groups are nested more than 1 deep (alias_deref_depth)"},
		{"alias_deref_depth 2", "cities", a + " " + b + " " + c},
	} {
		got := aliasOf(t, openConf(t, s, urlConf+tt.conf), tt.key)
		if got != tt.want && (!strings.HasPrefix(got, "alias_filter: ") || !strings.Contains(got, tt.want)) {
			t.Errorf("%s: %s; want %s (%s)", tt.key, got, tt.want, tt.conf)
		}
	}
	// A server of the table may be named, whatever its scheme and port.
	own := openConf(t, s, urlConf)
	own.set.servers = append(own.set.servers, server{scheme: "ldaps", addr: "evil.example:636", host: "Evil.example"})
	if got := aliasOf(t, own, "foreign"); got != a+" "+b+" "+c {
		t.Errorf("a server of ours: %s", got)
	}
}

// Whatever makes somebody a member, or no member any more, changes the lists.
func TestWatchGroupsByURL(t *testing.T) {
	s := urlGroups(t)
	tab := openConf(t, s, urlConf)
	changes, _ := watching(t, tab)
	is := func(want string) {
		t.Helper()
		expect(t, changes, table.Change{Service: table.Alias})
		if got := aliasOf(t, tab, "bonn"); got != want {
			t.Errorf("bonn = %s, want %s", got, want)
		}
	}
	const alice, bob = "alice@example.org alice@old.example", "bob@example.org bob@old.example"
	// An entry that is seen for the first time counts as changed: hence thrice.
	for _, step := range [][2]string{{"Rom", alice}, {"Bonn", alice + " " + bob}, {"Rom", alice}} {
		if err := s.Replace("uid=bob,ou=people,dc=example,dc=org", "l", step[0]); err != nil {
			t.Fatal(err)
		}
		is(step[1])
	}
	load(t, s, "dn: uid=dora,ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: dora\ncn: p\nsn: p\nl: Bonn\nmail: dora@example.org\n")
	is(alice + " dora@example.org")
	if err := s.Replace("cn=bonn,ou=lists,dc=example,dc=org", "memberURL", "ldap:///uid=bob,ou=people,dc=example,dc=org"); err != nil {
		t.Fatal(err)
	}
	is(bob)
}

func FuzzMemberURL(f *testing.F) {
	set, err := parseConf("url ldap://a\n"+urlConf, "t")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("ldap:///ou=people,dc=example,dc=org?mail?sub?(&(a=%20*)(b>=1))?x=y")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := set.parseMemberURL(text)
		if err != nil {
			return
		}
		if !below(u.base, "dc=example,dc=org") || len(u.attrs) == 0 {
			t.Fatalf("%q: %+v", text, u)
		}
		if _, err := compile("(&(objectClass=*)" + u.filter + ")"); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
