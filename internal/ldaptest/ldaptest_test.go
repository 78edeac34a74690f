package ldaptest

import (
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

func TestServer(t *testing.T) {
	s, err := New(t.Context(), Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	ldif := "# people\ndn: cn=a,dc=example,dc=org\nobjectClass: person\ncn: a\nsn:: YmFz\n ZTY0\n\ndn: cn=b,dc=example,dc=org\nobjectClass: person\nobjectClass: uidObject\nuid: b\ncn: b\nsn: b\n"
	if err := s.Load(t.Context(), ldif); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect(); err == nil {
		t.Error("stopped, and still answers")
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Replace("cn=b,dc=example,dc=org", "sn", "changed"); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(func(c *ldap.Conn) error {
		res, err := c.Search(ldap.NewSearchRequest(s.Suffix, ldap.ScopeWholeSubtree, 0, 0, 0, false, "(objectClass=person)", []string{"sn"}, nil))
		if err == nil && (len(res.Entries) != 2 || res.Entries[0].GetAttributeValue("sn") != "base64" || res.Entries[1].GetAttributeValue("sn") != "changed") {
			t.Errorf("entries = %v", res.Entries)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- s.Delete("cn=a,dc=example,dc=org") }()
	select {
	case <-answered:
		t.Error("paused, and still answers")
	case <-time.After(100 * time.Millisecond):
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("resumed: %v", err)
	}
	if err := s.Kill(); err != nil {
		t.Error(err)
	}
}

func TestParseLDIFRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"cn: a\n":           "line 1: cn comes before dn",
		"dn: cn=a\n\nbad\n": `line 3: "bad" has no colon`,
		"dn:: ?\n":          "line 1: illegal base64",
	} {
		if _, err := parseLDIF(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseLDIF(%q): %v; want %s", in, err, want)
		}
	}
}
