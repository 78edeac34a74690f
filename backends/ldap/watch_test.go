package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tabard/internal/ldaptest"
	"tabard/table"
)

// watching follows a table. The changes come over the channel, and the end over
// the other.
func watching(t *testing.T, tab *Table) (<-chan table.Change, <-chan error) {
	t.Helper()
	changes, end := make(chan table.Change, 10000), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		end <- tab.Watch(ctx, func(c table.Change) { changes <- c })
	}()
	select {
	case c := <-changes:
		if c != (table.Change{}) {
			t.Fatalf("first change = %+v", c)
		}
	case err := <-end:
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Fatal("the watch is never in force")
	}
	return changes, end
}

// expect waits until all of the changes came, in any order, and no others.
func expect(t *testing.T, changes <-chan table.Change, want ...table.Change) {
	t.Helper()
	want = slices.Clone(want)
	for len(want) > 0 {
		select {
		case c := <-changes:
			i := slices.Index(want, c)
			if i < 0 {
				t.Fatalf("change %+v; want %+v", c, want)
			}
			want = slices.Delete(want, i, i+1)
		case <-time.After(5 * time.Second):
			t.Fatalf("still missing: %+v", want)
		}
	}
	if len(changes) > 0 {
		t.Errorf("one more: %+v", <-changes)
	}
}

const watchConf = `basedn ou=people,dc=example,dc=org
mailaddrmap_filter (&(objectClass=inetOrgPerson)(uid=%s))
mailaddrmap_attributes mail
string_filter (mail=%s)
domain_filter (mail=*@%s)
ca_filter (&(objectClass=pkiCA)(cn=%s))
ca_base dc=example,dc=org
`

func person(uid, mail string) string {
	return fmt.Sprintf("dn: uid=%s,ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: %s\ncn: x\nsn: x\nmail: %s\n", uid, uid, mail)
}

func TestWatch(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	tab := openConf(t, s, watchConf)
	changes, _ := watching(t, tab)
	bob := "uid=bob,ou=people,dc=example,dc=org"

	load(t, s, person("Dora", "Dora@example.org"))
	expect(t, changes, table.Change{Service: table.MailAddrMap, Key: "dora"}, table.Change{Service: table.String, Key: "dora@example.org"}, table.Change{Service: table.Domain})

	all := []table.Change{{Service: table.MailAddrMap}, {Service: table.String}, {Service: table.Domain}}
	if err := s.Replace(bob, "mail", "robert@example.org"); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, all...)
	if row, err := tab.Lookup(t.Context(), table.MailAddrMap, "bob"); err != nil || row[0] != "robert@example.org" {
		t.Errorf("after the change: %q, %v", row, err)
	}
	// What no query reads is no change, once the entry is known.
	if err := s.Replace(bob, "description", "seen today"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("uid=dora,ou=people,dc=example,dc=org"); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, all...)
	if err := s.Do(func(c *ldap.Conn) error {
		return c.ModifyDN(ldap.NewModifyDNRequest(bob, "uid=robert", true, ""))
	}); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, all...)
	load(t, s, "dn: cn=root,dc=example,dc=org\nobjectClass: device\ncn: root\n")
	load(t, s, person("last", "last@example.org"))
	expect(t, changes, table.Change{Service: table.MailAddrMap, Key: "last"}, table.Change{Service: table.String, Key: "last@example.org"}, table.Change{Service: table.Domain})
}

// A member that changes changes the groups that it may be in.
func TestWatchGroups(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people+"\ndn: cn=all,dc=example,dc=org\nobjectClass: groupOfNames\ncn: all\nmember: uid=bob,ou=people,dc=example,dc=org\n")
	tab := openConf(t, s, "basedn dc=example,dc=org\nalias_filter (&(objectClass=groupOfNames)(cn=%s))\nalias_deref member\n")
	changes, _ := watching(t, tab)
	if err := s.Replace("uid=bob,ou=people,dc=example,dc=org", "mail", "robert@example.org"); err != nil {
		t.Fatal(err)
	}
	expect(t, changes, table.Change{Service: table.Alias})
	if got := aliasOf(t, tab, "all"); got != "robert@example.org" {
		t.Errorf("all = %s", got)
	}
}

// Of a directory that is large already, nothing is sent before the watch is in
// force; and a change is told in a moment.
func TestWatchLatency(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	changes, _ := watching(t, openConf(t, s, watchConf))
	c, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var took []time.Duration
	for i := range 100 {
		m := ldap.NewModifyRequest("uid=bob,ou=people,dc=example,dc=org", nil)
		m.Replace("mail", []string{fmt.Sprintf("bob%d@example.org", i)})
		began := time.Now()
		if err := c.Modify(m); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			select {
			case <-changes:
			case <-time.After(5 * time.Second):
				t.Fatal("no change is told")
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("from the modification sent to the last change told: p50 %s, p99 %s", took[50], took[98])
	if took[50] > time.Second {
		t.Errorf("the median is %s", took[50])
	}
}

func TestWatchEnds(t *testing.T) {
	s := directory(t, ldaptest.Options{})
	load(t, s, people)
	tab := openConf(t, s, watchConf)
	_, end := watching(t, tab)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-end:
		if err == nil || errors.Is(err, table.ErrUnsupported) || errors.Is(err, context.Canceled) {
			t.Errorf("a connection that is lost: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a lost connection is not noticed")
	}
	if err := tab.Watch(within(t, 5*time.Second), func(table.Change) { t.Error("a change of a server that is down") }); err == nil || errors.Is(err, table.ErrUnsupported) {
		t.Errorf("a server that is down: %v", err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	changes, _ := watching(t, tab)
	load(t, s, person("eve", "eve@example.org"))
	expect(t, changes, table.Change{Service: table.MailAddrMap, Key: "eve"}, table.Change{Service: table.String, Key: "eve@example.org"}, table.Change{Service: table.Domain})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tab.Watch(ctx, func(table.Change) { cancel() }) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("does not end with its context")
	}
}

func TestWatchUnsupported(t *testing.T) {
	s := directory(t, ldaptest.Options{NoSync: true})
	load(t, s, people)
	err := openConf(t, s, watchConf).Watch(within(t, 5*time.Second), func(table.Change) { t.Error("a change") })
	if !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("without syncprov: %v", err)
	}
}
