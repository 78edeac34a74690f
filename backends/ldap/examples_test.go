package ldap

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/ldaptest"
	"tabard/table"
	"tabard/table/tabletest"
)

const examples = "../../docs/examples"

// question is asked of an example; no want means not found, or no.
type question struct {
	service   table.Service
	key, want string
}

// openExample opens an example's table file, with the address and the password
// of a test's directory in place of those in it.
func openExample(t *testing.T, s *ldaptest.Server, name string) *Table {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, "ldap-"+name+".table"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		key, _, _ := strings.Cut(line, " ")
		switch key {
		case "url":
			line = "url " + s.URL + "\n"
		case "username":
			line = "username " + s.RootDN + "\n"
		case "password_file":
			line = "password " + ldaptest.Password + "\n"
		case "ca_file":
			line = "ca_file " + s.CAFile + "\n"
		}
		b.WriteString(line)
	}
	tab := openText(t, b.String())
	if err := tab.Ping(t.Context()); err != nil {
		t.Errorf("%s: Ping: %v", name, err)
	}
	return tab
}

// askAll asks every question, and makes sure that every service of the table is
// among them.
func askAll(t *testing.T, tab *Table, questions []question) {
	t.Helper()
	typed := table.New("mail", tab, 0)
	asked := make(map[string]bool)
	for _, q := range questions {
		got, err := answerOf(t.Context(), typed, q)
		if errors.Is(err, table.ErrNotFound) {
			got, err = "", nil
		}
		if err != nil || sorted(got) != sorted(q.want) {
			t.Errorf("%s %q = %q, %v; want %q", q.service, q.key, got, err, q.want)
		}
		asked[q.service.String()] = asked[q.service.String()] || q.want != ""
	}
	for _, q := range tab.set.queries() {
		name := strings.TrimPrefix(q.name, "fetch_")
		if !asked[name] && q != tab.set.members {
			t.Errorf("nothing asks for %s", name)
		}
	}
	if tab.set.auth.bind && !asked["auth"] {
		t.Error("nothing asks for auth")
	}
}

// sorted puts words in order: a directory keeps values and entries in none.
func sorted(s string) string {
	words := strings.Fields(s)
	slices.Sort(words)
	return strings.Join(words, " ")
}

func answerOf(ctx context.Context, tab *table.Table, q question) (string, error) {
	yes := func(ok bool, err error) (string, error) {
		if ok {
			return "yes", err
		}
		return "", err
	}
	switch q.service {
	case table.Domain, table.NetAddr, table.MailAddr, table.String:
		return yes(tab.Check(ctx, q.service, q.key))
	case table.Auth:
		user, password, _ := strings.Cut(q.key, ":")
		return yes(tab.Backend().(*Table).Authenticate(ctx, user, password))
	case table.Source:
		all, err := tab.FetchSources(ctx)
		return strings.Trim(fmt.Sprint(all), "[]"), err
	case table.Cert:
		pairs, err := tab.KeyPairs(ctx, q.key)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(len(pairs)), nil
	case table.CA:
		a, err := tab.Authorities(ctx, q.key)
		return fmt.Sprintf("%d and %d lists", len(a.Anchors), len(a.CRLs)), err
	case table.RelayHost:
		urls, err := tab.RelayHosts(ctx, q.key)
		for _, u := range urls {
			if _, err := config.ParseRelayURL(u.URL); err != nil {
				return "", err
			}
		}
		return strings.Join(tabletest.URLs(urls), " "), err
	}
	return tabletest.Print(ctx, tab, q.service, q.key)
}

// revocations is an empty revocation list of an authority, DER.
func revocations(t *testing.T, ca tabletest.Pair) string {
	t.Helper()
	issuer := *ca.Leaf
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
	}, &issuer, ca.Signer)
	if err != nil {
		t.Fatal(err)
	}
	return string(list)
}

func TestExampleOpenLDAP(t *testing.T) {
	s, err := ldaptest.New(t.Context(), ldaptest.Options{Schemas: []string{filepath.Join(schemaDir, "tabard.schema")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	root := tabletest.NewPair(t, "Root", "ecdsa", nil)
	leaf := tabletest.NewPair(t, "mx.example.org", "ecdsa", &root)
	load(t, s, testdata(t, "openldap.ldif"))
	load(t, s, "dn: cn=mx,dc=example,dc=org\nobjectClass: device\nobjectClass: tabardTLS\ncn: mx\ntabardTLSName: mx.example.org\n"+
		attr("userCertificate;binary", string(leaf.Leaf.Raw))+attr("cACertificate;binary", string(root.Leaf.Raw))+attr("tabardTLSKey", leaf.Key)+
		"\ndn: cn=clients,dc=example,dc=org\nobjectClass: device\nobjectClass: pkiCA\ncn: clients\n"+attr("cACertificate;binary", string(root.Leaf.Raw))+
		attr("certificateRevocationList;binary", revocations(t, root)))
	askAll(t, openExample(t, s, "openldap"), []question{
		{table.Domain, "example.org", "yes"}, {table.Domain, "example.com", ""},
		{table.UserInfo, "alice", `1000 100 "/home/alice"`}, {table.UserInfo, "carol", ""},
		{table.Credentials, "BOB@example.org", "bob {CRYPT}$6$salt$hash"}, {table.Credentials, "nobody", ""},
		{table.Auth, "alice@example.org:wonderland", "yes"}, {table.Auth, "alice:x", ""}, {table.Auth, "alice:", ""},
		{table.String, "alice", "yes"}, {table.String, "carol", ""},
		{table.Alias, "postmaster", "alice ops@elsewhere.example"}, {table.Alias, "staff", "bob@example.org"},
		{table.Alias, "team", "alice@example.org a.liddell@example.org bob@example.org"}, {table.Alias, "alice", ""},
		{table.MailAddr, "A.Liddell@example.org", "yes"}, {table.MailAddr, "x@example.org", ""},
		{table.MailAddrMap, "alice", "alice@example.org a.liddell@example.org"},
		{table.RelayHost, "al@example.org", "smtp+tls://mx.internal.example"}, {table.RelayHost, "bob@example.org", ""},
		{table.NetAddr, "192.0.2.77", "yes"}, {table.NetAddr, "198.51.100.1", ""},
		{table.Source, "", "192.0.2.10"}, {table.AddrName, "192.0.2.10", "out.example.org"},
		{table.Cert, "mx.example.org", "1"}, {table.Cert, "www.example.org", ""}, {table.CA, "clients", "1 and 1 lists"},
	})
}

func TestExampleActiveDirectory(t *testing.T) {
	s := directory(t, ldaptest.Options{Schemas: []string{"ad.schema"}})
	load(t, s, testdata(t, "ad.ldif"))
	s.URL = s.TLSURL
	askAll(t, openExample(t, s, "activedirectory"), []question{
		{table.Auth, "alice:wonderland", "yes"}, {table.Auth, "alice@example.org:wonderland", "yes"}, {table.Auth, "carol:gone", ""}, {table.Auth, "bob:", ""},
		{table.UserInfo, "info@example.org", `1000 100 "/home/alice"`}, {table.UserInfo, "bob", `-1 -1 ""`}, {table.UserInfo, "carol@example.org", ""},
		{table.Alias, "team@example.org", "alice@example.org bob@example.org"}, {table.Alias, "fwd@example.org", "fwd@elsewhere.example"}, {table.Alias, "alice@example.org", ""},
		{table.MailAddrMap, "alice", "alice@example.org info@example.org"},
		{table.MailAddr, "info@example.org", "yes"}, {table.MailAddr, "x@example.org", ""}, {table.String, "bob", "yes"}, {table.String, "x", ""},
	})
}

func TestExampleIRedMail(t *testing.T) {
	s := directory(t, ldaptest.Options{Schemas: []string{"iredmail.schema"}})
	load(t, s, testdata(t, "iredmail.ldif"))
	askAll(t, openExample(t, s, "iredmail"), []question{
		{table.Domain, "example.org", "yes"}, {table.Domain, "example.net", "yes"}, {table.Domain, "backup.example", ""}, {table.Domain, "off.example", ""},
		{table.UserInfo, "alice@example.org", `-1 -1 "/var/vmail/vmail1/example.org/a/alice"`}, {table.UserInfo, "gone@example.org", ""},
		{table.Credentials, "alice@example.org", "alice@example.org {SSHA512}c29tZWhhc2g="}, {table.Credentials, "bob@example.org", ""}, {table.Credentials, "gone@example.org", ""},
		{table.String, "alice@example.org", "yes"}, {table.String, "gone@example.org", ""},
		{table.Alias, "info@example.org", "alice@example.org office@elsewhere.example"}, {table.Alias, "bob@example.org", "bob@example.org bob@elsewhere.example"},
		{table.Alias, "team@example.org", "alice@example.org bob@example.org"}, {table.Alias, "@example.org", "alice@example.org"}, {table.Alias, "alice@example.org", ""},
		{table.MailAddrMap, "alice@example.org", "alice@example.org al@example.org"}, {table.MailAddr, "al@example.org", "yes"}, {table.MailAddr, "x@other.example", ""},
		{table.RelayHost, "alice@example.org", "smtp+tls://relay.example:2525"}, {table.RelayHost, "bob@example.org", ""}, {table.RelayHost, "@example.org", "smtp+tls://smtp.isp.example:587"}, {table.RelayHost, "*", ""},
	})
}

func TestExampleDockerMailserver(t *testing.T) {
	s := directory(t, ldaptest.Options{Schemas: []string{"postfixbook.schema"}})
	load(t, s, testdata(t, "postfixbook.ldif"))
	askAll(t, openExample(t, s, "dockermailserver"), []question{
		{table.Domain, "example.org", "yes"}, {table.Domain, "EXAMPLE.net", "yes"}, {table.Domain, "ample.org", ""}, {table.Domain, "closed.example", ""},
		{table.UserInfo, "alice@example.org", `5000 5000 "/var/mail/example.org/alice"`}, {table.UserInfo, "gone@closed.example", ""},
		{table.Credentials, "alice", "alice@example.org wonderland"}, {table.Auth, "alice@example.org:wonderland", "yes"}, {table.Auth, "gone:gone", ""}, {table.Auth, "bob:x", ""},
		{table.Alias, "info@example.net", "alice@example.org"}, {table.Alias, "team@example.org", "alice@example.org bob@example.org"}, {table.Alias, "left@example.org", ""},
		{table.MailAddrMap, "alice@example.org", "alice@example.org info@example.net"}, {table.MailAddr, "info@example.net", "yes"}, {table.MailAddr, "left@example.org", ""},
	})
}

// Every example of a table belongs to an example of a configuration, and is
// tested above.
func TestExamplesAreComplete(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "ldap-*.table"))
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		conf, err := os.ReadFile(strings.TrimSuffix(f, ".table") + ".conf")
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(conf), "ldap:/etc/tabard/"+filepath.Base(f)) {
			t.Errorf("%s is not in its configuration", f)
		}
	}
}
