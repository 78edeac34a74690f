package lookup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/table"
	"tabard/table/cache"
)

func TestHealth(t *testing.T) {
	now := time.Unix(1000, 0)
	h := newHealth(func() time.Time { return now })
	is := func(when string, want Source) {
		t.Helper()
		if got := h.source(); got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	start := now
	tick := func() time.Time { now = now.Add(time.Second); return now }
	is("before the first question", Source{State: SourceUnasked, Since: start})
	h.note(context.Canceled)
	h.note(table.ErrUnsupported)
	h.note(fmt.Errorf("x: %w", table.ErrKey))
	is("questions that were none", Source{State: SourceUnasked, Since: start})
	up := tick()
	h.note(table.ErrNotFound)
	is("an answer", Source{State: SourceUp, Since: up, Questions: 1})
	// One row that cannot be read is no outage, many failures are, from the first on.
	tick()
	h.note(errors.New("bad row"))
	h.note(nil)
	is("one failure", Source{State: SourceUp, Since: up, Questions: 3, Errors: 1, LastError: "bad row", LastErrorAt: now})
	first := tick()
	h.note(errors.New("one"))
	tick()
	h.note(errors.New("two"))
	h.note(errors.New("three\nlines"))
	is("three", Source{State: SourceDown, Since: first, Questions: 6, Errors: 4, LastError: "three lines", LastErrorAt: now})
	last := now
	up = tick()
	h.note(nil)
	is("again", Source{State: SourceUp, Since: up, Questions: 7, Errors: 4, LastError: "three lines", LastErrorAt: last})
	for _, f := range []func(){func() { h.note(context.DeadlineExceeded) }, func() { h.lost(errors.New("no connection")) }} {
		down := tick()
		f()
		if s := h.source(); s.State != SourceDown || !s.Since.Equal(down) || !s.LastErrorAt.Equal(down) {
			t.Errorf("at once: %+v", s)
		}
		h.answers()
	}
}

func tableInfo(t *testing.T, s *Service, name string) TableInfo {
	t.Helper()
	infos, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(infos, func(i TableInfo) bool { return i.Name == name })
	if i < 0 {
		t.Fatalf("no table %s in %+v", name, infos)
	}
	return infos[i]
}

func TestTables(t *testing.T) {
	f := newFixture(t)
	s := f.service(`table mail sqlite:/mem/mail
table logins sqlite:/mem/logins cache off
table list { "example.org" }
listen on 127.0.0.1 port 25 tls pki <mail> auth <logins> senders <mail>
action "in" maildir "/m" virtual <mail> userbase <mail>
action "out" relay domain <mail> src <mail>
match from any for domain <list> action "in"
match from auth for domain { "a.example" } action "out"
`)
	for name, want := range map[string][]string{
		"mail": {"alias", "userinfo", "source", "mailaddrmap", "relayhost", "cert"}, "logins": {"credentials"}, "list": {"domain"},
	} {
		if got := tableInfo(t, s, name).Services; !slices.Equal(got, want) {
			t.Errorf("%s is used for %q, want %q", name, got, want)
		}
	}
	if infos, _ := s.Tables(t.Context()); len(infos) != 3 {
		t.Errorf("%d tables: %+v", len(infos), infos)
	}
	ask := func(ref config.TableRef, key string) {
		_, _ = s.Query(t.Context(), QueryRequest{Table: ref, Service: table.Alias, Key: key}) // what it does is counted
	}
	for range 3 {
		ask("mail", "a")
		ask("logins", "a")
	}
	mail, logins := tableInfo(t, s, "mail"), tableInfo(t, s, "logins")
	if mail.Questions != 3 || mail.Source.Questions != 1 || mail.Cache.Hits != 2 || mail.Cache.Entries != 1 || mail.Cache.Watch.State != cache.WatchTold || mail.Source.State != SourceUp {
		t.Errorf("mail: %+v, cache %+v", mail, mail.Cache)
	}
	if logins.Questions != 3 || logins.Source.Questions != 3 || logins.Cache != nil || logins.Source.State != SourceUp {
		t.Errorf("logins: %+v", logins)
	}
	f.table("logins").fail(errDown)
	for range 3 {
		ask("logins", "a")
	}
	if src := tableInfo(t, s, "logins").Source; src.State != SourceDown || src.Errors != 3 || src.LastError != errDown.Error() {
		t.Errorf("logins are down: %+v", src)
	}
	f.table("logins").fail(nil)
	ask("logins", "a")
	if src := tableInfo(t, s, "logins").Source; src.State != SourceUp || src.Errors != 3 {
		t.Errorf("logins are up again: %+v", src)
	}
}

// A table that cannot be opened, or whose watch breaks off, is down before
// anybody asks it.
func TestTablesDownUnasked(t *testing.T) {
	r := &reopening{open: func(context.Context, config.Table) (table.Backend, error) { return nil, errDown }, health: newHealth(time.Now), log: slog.New(slog.DiscardHandler), clock: time.Now}
	if _, err := r.get(t.Context()); err == nil {
		t.Fatal("it opens")
	}
	if src := r.health.source(); src.State != SourceDown || src.LastError != "open: "+errDown.Error() || src.Questions != 0 {
		t.Errorf("not open: %+v", src)
	}
	r = &reopening{backend: breaking{newMemory()}, health: newHealth(time.Now)}
	told := 0
	if err := r.Watch(t.Context(), func(table.Change) {
		told++
		if src := r.health.source(); src.State != SourceUp {
			t.Errorf("watched: %+v", src)
		}
	}); !errors.Is(err, errDown) || told != 1 {
		t.Errorf("watch: %v, told %d times", err, told)
	}
	if src := r.health.source(); src.State != SourceDown || src.LastError != errDown.Error() || src.Errors != 0 {
		t.Errorf("watch lost: %+v", src)
	}
}

// breaking is a source whose watches break off.
type breaking struct{ *memory }

func (breaking) Watch(_ context.Context, changed func(table.Change)) error {
	changed(table.Change{})
	return errDown
}
