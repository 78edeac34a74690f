package ldap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/ldaptest"
	"tabard/table"
)

const people = `
dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit

dn: uid=alice,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
mail: Alice@example.org
mail: a.liddell@example.org
userPassword: wonderland

dn: uid=bob,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
mail: bob@example.org
userPassword: builder
`

var mapConf = []string{
	"basedn dc=example,dc=org", "mailaddrmap_filter (&(objectClass=inetOrgPerson)(uid=%s))", "mailaddrmap_attributes mail",
}

// lasting is a conf with the given timeout.
func lasting(timeout string) []string { return append([]string{"timeout " + timeout}, mapConf...) }

// asks asks for bob until it gets an answer, which it must in a moment.
func asks(t *testing.T, tab *Table, why string) {
	t.Helper()
	row, err := tab.Lookup(within(t, 5*time.Second), table.MailAddrMap, "bob")
	if err != nil || strings.Join(row, " ") != "bob@example.org" {
		t.Errorf("%s: %q, %v", why, row, err)
	}
}

// fails asks for a user whom nobody has, and expects an error that is temporary.
func fails(t *testing.T, tab *Table, within_ time.Duration, want string) {
	t.Helper()
	began := time.Now()
	_, err := tab.Lookup(within(t, 10*time.Second), table.MailAddrMap, "nobody")
	if err == nil || errors.Is(err, table.ErrNotFound) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want an error with %q", err, want)
	}
	if took := time.Since(began); took > within_ {
		t.Errorf("took %s: %v", took, err)
	}
	if strings.Contains(fmt.Sprint(err), ldaptest.Password) {
		t.Errorf("shows the password: %v", err)
	}
}

func TestServerRestarts(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	tab := openConf(t, s, mapConf...)
	fails(t, tab, 3*time.Second, "mailaddrmap_filter: "+s.URL)
	if err := tab.Ping(within(t, 5*time.Second)); err == nil {
		t.Error("Ping of a server that is down")
	}
	for range 3 {
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		asks(t, tab, "the first question after a start")
		if _, err := tab.Lookup(t.Context(), table.MailAddrMap, "nobody"); !errors.Is(err, table.ErrNotFound) {
			t.Errorf("nobody: %v", err)
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		asks(t, tab, "the first question after a restart")
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		fails(t, tab, 3*time.Second, "connection refused")
	}
}

func TestServerStalls(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	before := runtime.NumGoroutine()
	tab := openConf(t, s, lasting("300ms")...)
	asks(t, tab, "at first")
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	fails(t, tab, 2*time.Second, "no answer in time")
	// However many ask: none waits for longer, and nothing piles up.
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { fails(t, tab, 4*time.Second, "") })
	}
	wg.Wait()
	if n := openConns(t, s); n > 20 {
		t.Errorf("%d connections to a server that says nothing", n)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	asks(t, tab, "after the pause")
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// openConns counts connections to the server's port.
func openConns(t *testing.T, s *ldaptest.Server) int {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "ldap://"))
	if err != nil {
		t.Fatal(err)
	}
	return established(t, port)
}

// A caller in a hurry takes nobody along, and a connection that he found silent
// is not trusted for long.
func TestHurry(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	tab := openConf(t, s, lasting("20s")...)
	asks(t, tab, "at first")
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	_, err := tab.Lookup(within(t, 50*time.Millisecond), table.MailAddrMap, "bob")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("in a hurry: %v", err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	asks(t, tab, "after the pause")
}

func TestFailover(t *testing.T) {
	one, two := directory(t, ldaptest.Options{}), directory(t, ldaptest.Options{})
	load(t, one, people)
	load(t, two, people)
	if err := one.Replace("uid=bob,ou=people,dc=example,dc=org", "mail", "first@example.org"); err != nil {
		t.Fatal(err)
	}
	tab := openText(t, fmt.Sprintf("url %s %s\nusername %s\npassword %s\n%s", one.URL, two.URL, one.RootDN, ldaptest.Password, strings.Join(lasting("500ms"), "\n")))
	row, err := tab.Lookup(t.Context(), table.MailAddrMap, "bob")
	if err != nil || row[0] != "first@example.org" {
		t.Errorf("first server: %q, %v", row, err)
	}
	if err := one.Stop(); err != nil {
		t.Fatal(err)
	}
	asks(t, tab, "the other server")
	if err := two.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := one.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The question that finds the second one silent may fail; then the first is asked.
	for begin := time.Now(); ; {
		row, err = tab.Lookup(within(t, 5*time.Second), table.MailAddrMap, "bob")
		if err == nil || time.Since(begin) > 10*time.Second {
			break
		}
	}
	if err != nil || row[0] != "first@example.org" {
		t.Errorf("back at the first server: %q, %v", row, err)
	}
	if err := two.Resume(); err != nil {
		t.Fatal(err)
	}
}

func TestWrongPassword(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	secret := writeFile(t, "wrong-secret\n")
	tab := openText(t, fmt.Sprintf("url %s\nusername %s\npassword_file %s\n%s", s.URL, s.RootDN, secret, strings.Join(mapConf, "\n")))
	fails(t, tab, 3*time.Second, "bind as "+s.RootDN)
	if err := tab.Ping(t.Context()); err == nil || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("Ping: %v", err)
	}
	overwrite(t, secret, ldaptest.Password+"\n")
	asks(t, tab, "with the password mended")
}

func TestMissingBase(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	tab := openConf(t, s, "basedn ou=people,dc=example,dc=org", "mailaddrmap_filter (uid=%s)", "mailaddrmap_attributes mail")
	fails(t, tab, time.Second, "No Such Object")
	if err := tab.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), `mailaddrmap_base: "ou=people,dc=example,dc=org" does not exist`) {
		t.Errorf("Ping: %v", err)
	}
	load(t, s, people)
	asks(t, tab, "with the base there")
	if err := tab.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
}

// What the schema does not have can match nothing: that is a fault, not an
// unknown user.
func TestMissingAttributes(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	for _, tt := range []struct{ conf, ask, ping string }{
		{"mailaddrmap_filter (proxyAddresses=%s)\nmailaddrmap_attributes mail", "mailaddrmap_filter: the server's schema has no attribute proxyAddresses", "no attribute proxyAddresses"},
		{"mailaddrmap_filter (uid=%s)\nmailaddrmap_attributes nosuch", "mailaddrmap_attributes: the server's schema has no attribute nosuch", "no attribute nosuch"},
		{"mailaddrmap_filter (|(uid=%s)(nosuch=%s))\nmailaddrmap_attributes mail nix", "", "no attribute nosuch"},
	} {
		tab := openConf(t, s, "basedn dc=example,dc=org", tt.conf)
		_, err := tab.Lookup(t.Context(), table.MailAddrMap, "nobody")
		if tt.ask == "" && !errors.Is(err, table.ErrNotFound) || tt.ask != "" && (err == nil || err.Error() != tt.ask) {
			t.Errorf("%s: %v; want %s", tt.conf, err, tt.ask)
		}
		if err := tab.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), tt.ping) {
			t.Errorf("Ping: %v", err)
		}
	}
}

func TestClosed(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	tab := openConf(t, s, append(mapConf, "auth bind", "auth_dn uid=%s,ou=people,dc=example,dc=org")...)
	asks(t, tab, "at first")
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"bob", "", "two  blanks"} {
		if _, err := tab.Lookup(t.Context(), table.MailAddrMap, key); !errors.Is(err, errClosed) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if ok, err := tab.Authenticate(t.Context(), "bob", "builder"); ok || !errors.Is(err, errClosed) {
		t.Errorf("authenticate: %v, %v", ok, err)
	}
}
