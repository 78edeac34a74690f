package ldap

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"tabard/internal/ldaptest"
	"tabard/table"
)

func TestTransports(t *testing.T) {
	s := directory(t, ldaptest.Options{Global: []string{
		"authz-regexp gidNumber=[^,]*\\\\+uidNumber=[^,]*,cn=peercred,cn=external,cn=auth cn=admin,dc=example,dc=org",
		"authz-regexp cn=127.0.0.1 cn=admin,dc=example,dc=org",
	}, DB: []string{"access to attrs=mail by dn.exact=cn=admin,dc=example,dc=org write by ssf=71 users read by anonymous none", "access to * by * read"}})
	load(t, s, people)
	conf := strings.Join(mapConf, "\n")
	bind := fmt.Sprintf("\nusername %s\npassword %s\n", s.RootDN, ldaptest.Password)
	client := fmt.Sprintf("\nbind external\ntls_cert_file %s\ntls_key_file %s\n", s.CertFile, s.KeyFile)
	for name, text := range map[string]string{
		"ldap":             "url " + s.URL + bind,
		"StartTLS":         "url " + s.URL + "\nstarttls yes\nca_file " + s.CAFile + bind,
		"ldaps":            "url " + s.TLSURL + "\nca_file " + s.CAFile + bind,
		"ldapi":            "url " + s.SocketURL + bind,
		"ldapi EXTERNAL":   "url " + s.SocketURL + "\nbind external\n",
		"ldaps EXTERNAL":   "url " + s.TLSURL + "\nca_file " + s.CAFile + client,
		"StartTLS and own": "url " + s.URL + "\nstarttls yes\nca_file " + s.CAFile + client,
		"a list":           "url ldap://127.0.0.1:1 " + s.TLSURL + "\nca_file " + s.CAFile + bind,
	} {
		tab := openText(t, text+conf)
		asks(t, tab, name)
		if err := tab.Ping(t.Context()); err != nil {
			t.Errorf("%s: Ping: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"unknown authority":      "url " + s.TLSURL + bind,
		"StartTLS, unknown":      "url " + s.URL + "\nstarttls yes" + bind,
		"another name":           "url " + strings.Replace(s.TLSURL, "127.0.0.1", "127.0.0.2", 1) + "\nca_file " + s.CAFile + bind,
		"TLS to a clear port":    "url " + strings.Replace(s.URL, "ldap:", "ldaps:", 1) + "\nca_file " + s.CAFile + bind,
		"EXTERNAL without an id": "url " + s.URL + "\nbind external\n",
	} {
		fails(t, openText(t, text+"\ntimeout 1\n"+conf), 5*time.Second, "")
		_ = name
	}
}

func TestURLs(t *testing.T) {
	s := directory(t, ldaptest.Options{Global: []string{"authz-regexp gidNumber=[^,]*\\\\+uidNumber=[^,]*,cn=peercred,cn=external,cn=auth cn=admin,dc=example,dc=org"}})
	load(t, s, people)
	for _, u := range []string{
		s.URL + "/dc=example,dc=org",
		s.TLSURL + "/dc=example,dc=org????x-ca-file=" + url.PathEscape(s.CAFile),
		s.URL + "/ou=people,dc=example,dc=org??one?(sn=*)?!x-starttls,x-ca-file=" + url.PathEscape(s.CAFile),
		s.SocketURL + "/dc=example,dc=org????x-external",
		s.URL + "/dc=example,dc=org????bindname=cn=admin%2Cdc=example%2Cdc=org,x-password-file=" + url.PathEscape(writeFile(t, ldaptest.Password)),
	} {
		tab := openURL(t, u)
		row, err := tab.Lookup(t.Context(), table.MailAddrMap, "alice")
		if err != nil || strings.Join(row, " ") != "Alice@example.org a.liddell@example.org" {
			t.Errorf("%s: %q, %v", u, row, err)
		}
		if err := tab.Ping(t.Context()); err != nil {
			t.Errorf("%s: Ping: %v", u, err)
		}
	}
	tab := openURL(t, s.URL+"/dc=example,dc=org???(sn=B)")
	if _, err := tab.Lookup(t.Context(), table.MailAddrMap, "alice"); err == nil {
		t.Error("the filter of the URL leaves nobody out")
	}
}

func TestReferrals(t *testing.T) {
	far := directory(t, ldaptest.Options{})
	load(t, far, people)
	near := directory(t, ldaptest.Options{})
	load(t, near, "dn: ou=people,dc=example,dc=org\nobjectClass: referral\nobjectClass: extensibleObject\nou: people\nref: "+far.URL+"/ou=people,dc=example,dc=org\n")
	conf := append([]string{}, mapConf...)
	tab := openConf(t, near, conf...)
	if _, err := tab.Lookup(t.Context(), table.MailAddrMap, "bob"); err != table.ErrNotFound {
		t.Errorf("a reference that is not followed: %v", err)
	}
	asks(t, openConf(t, near, append(conf, "referrals yes")...), "a reference from a search")
	conf[0] = "basedn ou=people,dc=example,dc=org"
	tab = openConf(t, near, conf...)
	if _, err := tab.Lookup(t.Context(), table.MailAddrMap, "bob"); err == nil || !strings.Contains(err.Error(), "referrals is not on") {
		t.Errorf("a base elsewhere: %v", err)
	}
	asks(t, openConf(t, near, append(conf, "referrals yes")...), "a base elsewhere")
}
