package ldap

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowBinds is a server where alice and bob are, bob is disabled, and a bind takes a
// while. binds counts them.
func slowBinds(t *testing.T, takes time.Duration) (tab *Table, binds *atomic.Int64) {
	t.Helper()
	binds = new(atomic.Int64)
	f := fake{
		search: func(w *fakeConn, _, filter string, _ []string) {
			switch filter {
			case "(uid=alice)":
				w.entry("uid=alice,dc=x", "nsAccountLock", "false")
			case "(uid=bob)":
				w.entry("uid=bob,dc=x", "nsAccountLock", "TRUE")
			}
			w.done(0)
		},
		bind: func(dn, password string) int {
			if dn == "cn=mail,dc=x" {
				return 0
			}
			binds.Add(1)
			if dn != "uid=alice,dc=x" {
				t.Errorf("bind as %q", dn)
			}
			<-time.After(takes)
			if password == "right" {
				return 0
			}
			return 49
		},
	}
	return openText(t, "url "+f.serve(t)+"\nusername cn=mail,dc=x\npassword p\nbasedn dc=x\nauth bind\nauth_filter (uid=%s)\n"), binds
}

// refusals lets users try a wrong password one after the other, and returns how long
// each took.
func refusals(t *testing.T, tab *Table, users ...string) []time.Duration {
	t.Helper()
	var took []time.Duration
	for _, u := range users {
		began := time.Now()
		if ok, err := tab.Authenticate(t.Context(), u, "wrong"); ok || err != nil {
			t.Errorf("%s: %v, %v", u, ok, err)
		}
		took = append(took, time.Since(began))
	}
	return took
}

// Somebody who is not there, or locked, waits as long as somebody whose password is
// wrong, and no bind is made for it.
func TestUnknownUsersWait(t *testing.T) {
	const takes = 150 * time.Millisecond
	tab, binds := slowBinds(t, takes)
	// Nothing is known yet.
	if d := refusals(t, tab, "nobody")[0]; d < bindGuess {
		t.Errorf("before the first bind: %s", d)
	}
	for i, d := range refusals(t, tab, "alice", "nobody", "bob", "alice", "somebody") {
		if d < takes {
			t.Errorf("%d: %s, a bind takes %s", i, d, takes)
		}
	}
	if n := binds.Load(); n != 2 {
		t.Errorf("%d binds, of 2 as alice", n)
	}
	// Those who wait take the places of binds.
	began := time.Now()
	var wg sync.WaitGroup
	for range bindConns + 1 {
		wg.Go(func() { refusals(t, tab, "nobody") })
	}
	wg.Wait()
	if d := time.Since(began); d < 2*takes {
		t.Errorf("%d at a time: all after %s", bindConns+1, d)
	}
	// Who gives up has no answer.
	if ok, err := tab.Authenticate(within(t, takes/3), "nobody", "wrong"); ok || err == nil {
		t.Errorf("given up: %v, %v", ok, err)
	}
	if n := binds.Load(); n != 2 {
		t.Errorf("%d binds, of 2 as alice", n)
	}
	if ok, err := tab.Authenticate(t.Context(), "alice", "right"); !ok || err != nil {
		t.Errorf("right: %v, %v", ok, err)
	}
}

func TestBindTimes(t *testing.T) {
	b := bindTimes{seed: maphash.MakeSeed()}
	if d := b.like("a"); d != bindGuess {
		t.Errorf("nothing known: %s", d)
	}
	b.add(time.Hour)
	for i := range bindsKept {
		b.add(time.Duration(i + 1)) // the hour is forgotten
	}
	seen := make(map[time.Duration]bool)
	for i := range 1000 {
		name := strings.Repeat("n", i+1)
		d := b.like(name)
		if d < 1 || d > bindsKept || d != b.like(strings.ToUpper(name)) {
			t.Fatalf("%d: %s, then %s", i, d, b.like(name))
		}
		seen[d] = true
	}
	if len(seen) < bindsKept/2 {
		t.Errorf("only %d of %d times occur", len(seen), bindsKept)
	}
}
