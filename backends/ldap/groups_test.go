package ldap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tabard/internal/ldaptest"
	"tabard/table"
)

// aliasOf returns the sorted answer, or the error's text.
func aliasOf(t *testing.T, tab *Table, key string) string {
	t.Helper()
	row, err := tab.Lookup(t.Context(), table.Alias, key)
	if errors.Is(err, table.ErrNotFound) {
		return "none"
	}
	if err != nil {
		return err.Error()
	}
	slices.Sort(row)
	return strings.Join(row, " ")
}

func TestGroupsByDN(t *testing.T) {
	s := directory(t, ldaptest.Options{Schemas: []string{"ad.schema"}})
	load(t, s, testdata(t, "ad.ldif"))
	const conf = "basedn dc=example,dc=org\nalias_filter (&(objectClass=group)(proxyAddresses=smtp:%s))\nalias_deref member\n"
	const enabled = "alias_deref_filter (!(userAccountControl:1.2.840.113556.1.4.803:=2))\n"
	for _, tt := range []struct{ conf, key, want string }{
		{conf, "team@example.org", "alice@example.org bob@example.org carol@example.org"},
		{conf + enabled, "team@example.org", "alice@example.org bob@example.org"},
		{conf + enabled, "INNER@example.org", "alice@example.org bob@example.org"},
		{conf + "alias_deref_attributes proxyAddresses\n" + enabled, "team@example.org", "alice@example.org bob@example.org info@example.org"},
		{conf, "alice@example.org", "none"},
		{conf + "alias_deref_depth 1\n", "team@example.org", "alias_filter: groups are nested more than 1 deep (alias_deref_depth)"},
		{conf + "alias_deref_limit 4\n", "team@example.org", "alias_filter: more than 4 members (alias_deref_limit)"},
		// By the members' own attribute, as in-chain rules and back-links go.
		{"basedn dc=example,dc=org\nalias_filter (&(objectClass=user)(cn=%l)(mail:caseIgnoreIA5Match:=%s))\nalias_attributes targetAddress mail\n", "fwd@example.org", "none"},
		{"basedn dc=example,dc=org\nalias_filter (&(objectClass=user)(proxyAddresses=smtp:%s)(targetAddress=*))\nalias_attributes targetAddress\n", "fwd@example.org", "fwd@elsewhere.example"},
	} {
		if got := aliasOf(t, openConf(t, s, tt.conf), tt.key); got != tt.want {
			t.Errorf("%s: %s; want %s\n%s", tt.key, got, tt.want, tt.conf)
		}
	}
}

func TestGroupsByName(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people+`
dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit

dn: cn=staff,ou=groups,dc=example,dc=org
objectClass: posixGroup
cn: staff
gidNumber: 100
memberUid: alice
memberUid: bob
memberUid: left

dn: cn=none,ou=groups,dc=example,dc=org
objectClass: posixGroup
cn: none
gidNumber: 101

dn: cn=list,ou=groups,dc=example,dc=org
objectClass: nisMailAlias
cn: list
rfc822MailMember: bob
rfc822MailMember: else@where.example
`)
	conf := "basedn dc=example,dc=org\nalias_base ou=groups,dc=example,dc=org\nalias_filter (&(|(objectClass=posixGroup)(objectClass=nisMailAlias))(cn=%s))\nalias_attributes rfc822MailMember\nalias_member_uid memberUid\n"
	for key, want := range map[string]string{
		"staff": "Alice@example.org a.liddell@example.org bob@example.org", "none": "none", "list": "bob else@where.example", "nobody": "none",
	} {
		if got := aliasOf(t, openConf(t, s, conf), key); got != want {
			t.Errorf("%s: %s; want %s", key, got, want)
		}
	}
	conf += "alias_deref_attributes uid\nalias_member_uid_filter (&(objectClass=inetOrgPerson)(uid=%s)(mail=bob*))\n"
	if got := aliasOf(t, openConf(t, s, conf), "staff"); got != "bob" {
		t.Errorf("staff: %s", got)
	}
}

func TestLargeGroup(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	var b strings.Builder
	members := ""
	for i := range 1000 {
		fmt.Fprintf(&b, "dn: uid=u%d,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: u%d\ncn: u\nsn: u\nmail: u%d@example.org\n\n", i, i, i)
		members += fmt.Sprintf("member: uid=u%d,dc=example,dc=org\n", i)
	}
	load(t, s, b.String()+"dn: cn=all,dc=example,dc=org\nobjectClass: groupOfNames\ncn: all\n"+members)
	tab := openConf(t, s, "basedn dc=example,dc=org\nalias_filter (&(objectClass=groupOfNames)(cn=%s))\nalias_deref member")
	if row, err := tab.Lookup(t.Context(), table.Alias, "all"); err != nil || len(row) != 1000 {
		t.Errorf("%d, %v", len(row), err)
	}
}
