package ldap

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tabard/backends/conf"
	"tabard/internal/config"
	"tabard/table"
)

// parseConf reads text as readConf reads a file.
func parseConf(text, name string) (*settings, error) {
	set := newSettings(name)
	if err := conf.Parse("", text, set.line, set.finish); err != nil {
		return nil, err
	}
	return set, nil
}

func TestParseConf(t *testing.T) {
	set, err := parseConf(`
# as table-ldap(5) shows it
url		ldap://ldap.example.org ldaps://b.example.org:1636
username	cn=admin,dc=example,dc=org
password:	p%s#w
basedn		dc=example,dc=org
ca_file /etc/ssl/ca.pem

alias_filter		(&(objectClass=nisMailAlias)(cn=%s))
alias_attributes	rfc822MailMember
credentials_filter	(&(objectClass=posixAccount)(uid=%u))
credentials_attributes	uid,userPassword
userinfo_filter uid=%s
userinfo_attributes uidNumber, gidNumber, homeDirectory
domain_filter	(&(o=%h)(dc=%s))
mailaddr_base ou=people,dc=example,dc=org
mailaddr_scope one
mailaddr_filter (mail=%l@%d)
fetch_netaddr_filter (ipNetworkNumber=*)
fetch_netaddr_attributes ipNetworkNumber
source_filter (cn=sources)
source_attributes ipHostNumber
timeout 2
`, "mail")
	if err != nil {
		t.Fatal(err)
	}
	if len(set.servers) != 2 || set.servers[0].addr != "ldap.example.org:389" || set.servers[1].String() != "ldaps://b.example.org:1636" {
		t.Errorf("servers = %v", set.servers)
	}
	if set.bindDN != "cn=admin,dc=example,dc=org" || set.secret != "p%s#w" || set.timeout != 2*time.Second {
		t.Errorf("settings = %+v", set)
	}
	for s, want := range map[table.Service]string{
		table.Alias: "(&(objectClass=nisMailAlias)(cn=a@b))", table.Credentials: "(&(objectClass=posixAccount)(uid=a@b))",
		table.UserInfo: "(uid=a@b)", table.Domain: "(&(o=mail)(dc=a@b))", table.MailAddr: "(mail=a@b)",
	} {
		q := set.lookup[s]
		if q == nil {
			t.Errorf("%s is not configured", s)
		} else if got, ok := q.filter.expand("a@b"); got != want || !ok {
			t.Errorf("%s: %s; want %s", s, got, want)
		}
	}
	if q := set.lookup[table.MailAddr]; q.base != "ou=people,dc=example,dc=org" || q.scope != ldap.ScopeSingleLevel {
		t.Errorf("mailaddr: %+v", q)
	}
	if set.fetch[table.NetAddr] == nil || set.fetch[table.Source] == nil {
		t.Error("lists are missing")
	}
}

func TestParseConfRefuses(t *testing.T) {
	const head = "url ldap://h\nbasedn dc=x\n"
	for in, want := range map[string]string{
		"":                               "url is missing",
		"url\n":                          `1: "url" has no value`,
		"url ldap://h\nurl ldap://i\n":   `2: "url" is already on line 1`,
		"url ldap+tls://h":               "1: url: ",
		"url ldap://h/dc=x":              "1: url: ",
		"url ldap://h:x":                 "1: url: ",
		"url ldapi://relative":           "1: url: ",
		head + "nosuch x":                "3: nosuch: unknown key",
		head + "alias_nosuch x":          "3: alias_nosuch: unknown key",
		head + "query_alias x":           "3: query_alias: unknown key",
		head + "fetch_alias_filter (a=b": "unknown key: alias is no list",
		head + "alias_filter (cn=%s)":    "alias_attributes: 0 are given, alias needs 1",
		head + "alias_filter (cn=%x)":    `unknown placeholder "x"`,
		head + "alias_filter (cn=50%)":   "",
		head + "alias_filter (cn=x)\nalias_attributes m":                                 "alias_filter: has no placeholder",
		head + "alias_filter (%s=x)\nalias_attributes m":                                 "placeholder before the =",
		head + "alias_filter (cn=%s\nalias_attributes m":                                 "a ) is missing",
		head + "alias_filter (cn=%s))\nalias_attributes m":                               "follows the filter",
		head + "alias_filter (&)\nalias_attributes m":                                    "has 0 parts",
		head + "alias_filter (cn=%s)(a=b)\nalias_attributes m":                           "follows the filter",
		head + "alias_filter (c n=%s)\nalias_attributes m":                               "is not the name of an attribute",
		head + "alias_attributes m":                                                      "alias_filter is missing",
		head + "alias_filter (cn=%s)\nalias_attributes m()":                              "is not the name of an attribute",
		head + "credentials_filter (uid=%s)\ncredentials_attributes uid":                 "credentials_attributes: 1 are given, credentials needs 2",
		head + "source_filter (cn=%s)\nsource_attributes x":                              "source_filter: must not have a placeholder",
		"url ldap://h\nalias_filter (cn=%s)\nalias_attributes m":                         "neither it nor basedn is given",
		"url ldap://h\nbasedn nonsense":                                                  "is not a DN",
		head + "username cn=x":                                                           "username has no password",
		head + "password x":                                                              "password has no username",
		head + "username cn=x\npassword y\nbind external":                                "exclude each other",
		head + "bind sasl":                                                               `"sasl"; expected simple or external`,
		head + "scope all":                                                               "expected base, one or sub",
		head + "starttls maybe":                                                          "neither yes nor no",
		head + "timeout soon":                                                            "is not a time",
		head + "page_size -1":                                                            "is not a number",
		head + "auth yes":                                                                `"yes"; expected bind`,
		head + "auth bind":                                                               "needs either auth_dn or auth_filter",
		head + "auth_filter (uid=%s)":                                                    "need the line: auth bind",
		head + "auth bind\nauth_dn cn=x":                                                 "has no placeholder for the user",
		head + "auth bind\nauth_dn %s":                                                   "DN",
		head + "auth bind\nauth_dn uid=%s,dc=x\nauth_filter (uid=%s)":                    "needs either auth_dn or auth_filter",
		head + "alias_deref member":                                                      "alias_filter",
		head + "alias_filter (cn=%s)\nalias_attributes m\nalias_deref_depth 3":           "",
		head + "alias_filter (cn=%s)\nalias_deref member\nalias_deref_filter (a=%s)":     "must not have a placeholder",
		"url ldaps://h\nbasedn dc=x\nstarttls yes":                                       "starttls: ldaps://h:636 is not",
		head + "tls_cert_file /x":                                                        "belong together",
		head + "relayhost_filter (cn=%s)\nrelayhost_attributes m\nrelayhost_format smtp": "has no %s for the value",
	} {
		_, err := parseConf(in, "mail")
		if want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseConf(%q): %v; want %s", in, err, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for source, want := range map[string]string{
		"":                         "no path given",
		"/nosuch/table.conf":       "no such file",
		"ldap://h":                 "no base DN",
		"ldap://h/dc=x?mail":       "attributes differ",
		"ldap://h/dc=x??all":       "expected base, one or sub",
		"ldap://h/dc=x???(a=b":     "is missing",
		"ldap://h/dc=x????!x-what": "unknown extension",
		"ldap://h/nonsense":        "is not a DN",
		"ldap://h/dc=x?????":       "more than four",
		"ldap://h/%zz":             "invalid URL escape",
		writeFile(t, "url ldap://h\nbasedn dc=x\nca_file /nosuch"):                          "no such file",
		writeFile(t, "url ldap://h\nbasedn dc=x\nusername cn=x\npassword_file /nosuch"):     "no such file",
		writeFile(t, "url ldap://h\nbasedn dc=x\nusername cn=x\npassword_file "+empty(t)):   "would be an anonymous bind",
		writeFile(t, "url ldap://h\nbasedn dc=x\nca_file "+empty(t)):                        "has no certificate",
		writeFile(t, "url ldap://h\nbasedn dc=x\ntls_cert_file /nosuch\ntls_key_file /nix"): "tls_cert_file",
	} {
		_, err := Open(context.Background(), config.Table{Name: "mail", Source: source}, table.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v; want %s", source, err, want)
		}
	}
}

func empty(t *testing.T) string { return writeFile(t, "") }

func TestParseURL(t *testing.T) {
	set, err := parseURL("ldap://a.example,b.example:1389/ou=x%2Cdc=example,dc=org??one?(st=on)?!x-starttls", "mail")
	if err != nil {
		t.Fatal(err)
	}
	if len(set.servers) != 2 || set.servers[1].addr != "b.example:1389" || set.base != "ou=x,dc=example,dc=org" || set.scope != ldap.ScopeSingleLevel || !set.startTLS {
		t.Errorf("settings = %+v", set)
	}
	if f, _ := set.lookup[table.Alias].filter.expand("k"); f != "(&(st=on)(objectClass=nisMailAlias)(cn=k))" {
		t.Errorf("filter = %s", f)
	}
	if set, err = parseURL("ldapi://%2Frun%2Fldapi/dc=x????x-external", "mail"); err != nil || set.servers[0].addr != "/run/ldapi" || !set.external {
		t.Errorf("%+v, %v", set, err)
	}
	if set, err = parseURL("ldaps://[::1]/dc=x", "mail"); err != nil || set.servers[0].addr != "[::1]:636" || set.servers[0].host != "::1" {
		t.Errorf("%+v, %v", set, err)
	}
}
