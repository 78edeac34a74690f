package ldap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tabard/table"
)

// Answers that come out of order, in pieces, beside those to the library's own
// searches and however long get to those who asked.
func TestAnswersFindTheirSearch(t *testing.T) {
	var mu sync.Mutex
	var held []func()
	long := strings.Repeat("x", 3*wireBuffer)
	url := fakeServer(t, func(w *fakeConn, base, filter string, _ []string) {
		if base == "" {
			w.entry("", "cn", long)
			w.done(0)
			return
		}
		name := strings.Trim(filter, "()")
		w.entry("cn=a,dc=x", "rfc822MailMember", name)
		mu.Lock()
		defer mu.Unlock()
		// Each answer ends when two later ones have begun.
		held = append(held, func() {
			w.entry("cn=b,dc=x", "rfc822MailMember", strings.Repeat(name, 20_000))
			w.done(0)
		})
		if len(held) == 3 {
			for _, f := range held {
				f()
			}
			held = nil
		}
	})
	tab := openText(t, "url "+url+"\nbasedn dc=x\nalias_filter (cn=%s)\nalias_attributes rfc822MailMember\n")
	c, err := newDialer(tab.set).connect(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.kill()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for j := range 20 {
				name := fmt.Sprintf("cn=%d-%d", i, j)
				a, err := tab.search.ask(within(t, 10*time.Second), c, &request{base: "dc=x", filter: "(" + name + ")"})
				if err != nil || len(a.entries) != 2 || a.entries[0].GetAttributeValue("rfc822MailMember") != name || a.entries[1].GetAttributeValue("rfc822MailMember") != strings.Repeat(name, 20_000) {
					t.Errorf("%s: %d entries, %v", name, len(a.entries), err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			res, err := c.Search(&ldap.SearchRequest{Filter: "(cn=*)"})
			if err != nil || len(res.Entries) != 1 || res.Entries[0].GetAttributeValue("cn") != long {
				t.Errorf("the library's: %v", err)
			}
		}
	})
	wg.Wait()
	if n := len(c.wire.asked); n != 0 {
		t.Errorf("%d searches are left", n)
	}
}

// A search that nobody waits for any more is ended at the server, too, and what
// still comes of it is for nobody.
func TestAbandon(t *testing.T) {
	abandoned := make(chan int64, 1)
	late := make(chan *fakeConn, 1)
	f := fake{abandoned: func(id int64) { abandoned <- id }}
	f.search = func(w *fakeConn, base, filter string, _ []string) {
		switch {
		case base == "":
			w.done(0)
		case filter == "(cn=slow)":
			w.entry("cn=slow,dc=x", "rfc822MailMember", "a")
			late <- w
		case filter == "(cn=next)":
			old := <-late
			old.entry("cn=slow,dc=x", "rfc822MailMember", strings.Repeat("b", 2*wireBuffer))
			old.done(0)
			w.entry("cn=next,dc=x", "rfc822MailMember", "c")
			w.done(0)
		}
	}
	tab := openText(t, "url "+f.serve(t)+"\nbasedn dc=x\nalias_filter (cn=%s)\nalias_attributes rfc822MailMember\n")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w := <-late
		cancel()
		late <- w
	}()
	if _, err := tab.Lookup(ctx, table.Alias, "slow"); !errors.Is(err, context.Canceled) {
		t.Errorf("slow: %v", err)
	}
	select {
	case id := <-abandoned:
		if id < firstID {
			t.Errorf("message %d is abandoned", id)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing is abandoned")
	}
	if row, err := tab.Lookup(within(t, 5*time.Second), table.Alias, "next"); err != nil || row[0] != "c" {
		t.Errorf("next: %q, %v", row, err)
	}
}

// Ids are used again after a billion, but never twice at a time.
func TestMessageIDs(t *testing.T) {
	w := newWire(nil, time.Second)
	w.id = lastID
	var got []int
	for range 3 {
		x := &exchange{done: make(chan struct{})}
		if err := w.begin(x); err != nil {
			t.Fatal(err)
		}
		got = append(got, x.id)
		if len(got) == 2 {
			w.id = lastID
		}
	}
	if got[0] != lastID || got[1] != firstID || got[2] != firstID+1 {
		t.Errorf("ids %d", got)
	}
	w.fail(errors.New("gone"))
	if err := w.begin(&exchange{}); !isNetwork(err) || len(w.asked) != 0 {
		t.Errorf("after the end: %v, %d left", err, len(w.asked))
	}
}
