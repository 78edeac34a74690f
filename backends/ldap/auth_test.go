package ldap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/ldaptest"
)

func testdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type try struct {
	user, password string
	want           bool
}

func tryAll(t *testing.T, tab *Table, tries []try) {
	t.Helper()
	for _, a := range tries {
		if ok, err := tab.Authenticate(t.Context(), a.user, a.password); ok != a.want || err != nil {
			t.Errorf("%q, %q: %v, %v; want %v", a.user, a.password, ok, err, a.want)
		}
	}
}

func TestBindByDN(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	tab := openText(t, "url "+s.URL+"\nauth bind\nauth_dn uid=%l,ou=people,dc=example,dc=org\n")
	if ok, err := tab.Authenticates(t.Context()); !ok || err != nil {
		t.Errorf("authenticates: %v, %v", ok, err)
	}
	tryAll(t, tab, []try{
		{"alice", "wonderland", true}, {"Alice@example.org", "wonderland", true}, {"alice", "Wonderland", false}, {"bob", "builder", true},
		{"alice", "", false}, {"", "", false}, {"", "x", false}, {"nobody", "x", false}, {"nobody", "", false},
		{"alice,ou=people,dc=example,dc=org", "wonderland", false}, {"bob+uid=alice", "builder", false}, {"*", "x", false}, {" alice", "wonderland", false},
		{"alice\x00", "wonderland", false}, {"alice", "wonderland\x00", false},
	})
}

func TestBindBySearch(t *testing.T) {
	s := directory(t, ldaptest.Options{Schemas: []string{"ad.schema"}})
	load(t, s, testdata(t, "ad.ldif"))
	tab := openConf(t, s, "basedn dc=example,dc=org\nauth bind\nauth_filter (&(objectClass=user)(|(sAMAccountName=%s)(userPrincipalName=%s)))\n")
	tryAll(t, tab, []try{
		{"alice", "wonderland", true}, {"ALICE@example.org", "wonderland", true}, {"alice", "x", false}, {"alice", "", false},
		{"bob", "builder", true}, {"carol", "gone", false}, {"fwd", "x", false}, {"nobody", "x", false}, {"*", "x", false}, {"a*", "wonderland", false},
	})
	// Of a disabled account not even the right password counts, whichever way the
	// entry is found.
	tab = openConf(t, s, "auth bind\nauth_dn cn=%s,ou=Staff,dc=example,dc=org")
	tryAll(t, tab, []try{{"Left, Carol", "gone", false}, {"bob", "builder", true}})
	// Two entries that could be meant are a fault.
	tab = openConf(t, s, "basedn dc=example,dc=org\nauth bind\nauth_filter (|(sAMAccountName=%s)(cn=Bob))")
	if ok, err := tab.Authenticate(t.Context(), "alice", "wonderland"); ok || err == nil || !strings.Contains(err.Error(), "2 entries") {
		t.Errorf("two entries: %v, %v", ok, err)
	}
	tab = openConf(t, s, "basedn dc=example,dc=org\nauth bind\nauth_filter (nosuch=%s)")
	if ok, err := tab.Authenticate(t.Context(), "alice", "wonderland"); ok || err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("unknown attribute: %v, %v", ok, err)
	}
	if ok, _ := openConf(t, s, mapConf...).Authenticates(t.Context()); ok {
		t.Error("authenticates without auth bind")
	}
}

// A flood of logins keeps to its own few connections, and searches go on.
func TestBindsAreBounded(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	tab := openConf(t, s, append(mapConf, "auth bind", "auth_filter (uid=%s)")...)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			user, password := "alice", "wonderland"
			if i%2 == 1 {
				password = fmt.Sprint("wrong", i)
			}
			if ok, err := tab.Authenticate(t.Context(), user, password); ok != (i%2 == 0) || err != nil {
				t.Errorf("%s: %v, %v", password, ok, err)
			}
			// Who searches is never the user.
			asks(t, tab, "meanwhile")
		})
	}
	wg.Wait()
	if n := openConns(t, s); n > searchConns+bindConns {
		t.Errorf("%d connections", n)
	}
}

func TestBindHeals(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	tab := openText(t, "url "+s.URL+"\ntimeout 300ms\nauth bind\nauth_dn uid=%s,ou=people,dc=example,dc=org\n")
	right := []try{{"alice", "wonderland", true}, {"alice", "x", false}}
	tryAll(t, tab, right)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if ok, err := tab.Authenticate(t.Context(), "alice", "x"); ok || err == nil {
		t.Errorf("stopped: %v, %v", ok, err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	tryAll(t, tab, right)
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if ok, err := tab.Authenticate(t.Context(), "alice", "wonderland"); ok || err == nil || strings.Contains(err.Error(), "wonderland") {
		t.Errorf("paused: %v, %v", ok, err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("paused: took %s", took)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	tryAll(t, tab, right)
}
