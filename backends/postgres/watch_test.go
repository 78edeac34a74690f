package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"tabard/internal/pgtest"
	"tabard/table"
)

// watching is a watch that runs.
type watching struct {
	changes chan table.Change
	ended   chan error
}

// watch starts a watch and returns when it is in force.
func watch(t *testing.T, b table.Backend) *watching {
	t.Helper()
	w := &watching{make(chan table.Change, 1000), make(chan error, 1)}
	go func() {
		w.ended <- b.(table.Watcher).Watch(t.Context(), func(c table.Change) { w.changes <- c })
	}()
	if c := w.next(t); c != (table.Change{}) {
		t.Fatalf("the first change is %v", c)
	}
	return w
}

func (w *watching) next(t *testing.T) table.Change {
	t.Helper()
	select {
	case c := <-w.changes:
		return c
	case err := <-w.ended:
		t.Fatalf("the watch ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is told")
	}
	return table.Change{}
}

// lost waits for the watch to say that it knows no more.
func (w *watching) lost(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the watch goes on")
	}
	return nil
}

func TestWatchOwnSchema(t *testing.T) {
	url, conn := newDB(t)
	b := open(t, url)
	t.Cleanup(func() { b.Close() })
	w := watch(t, b)
	for _, tt := range []struct {
		sql  string
		want []string
	}{
		{`INSERT INTO aliases (address, target) VALUES ('Root', 'a')`, []string{"alias Root"}},
		{`UPDATE aliases SET address = 'x y' WHERE address = 'Root'`, []string{"alias Root", "alias x y"}},
		{`INSERT INTO users (name) VALUES ('u')`, []string{"certauth ", "credentials u", "userinfo u", "string u"}},
		{`INSERT INTO certificates (name, chain) VALUES ('mx', 'c')`, []string{"cert mx"}},
		{`INSERT INTO domains SELECT 'd' || n FROM generate_series(1, 10000) n`, []string{"domain "}},
		{`UPDATE domains SET created = now()`, []string{"domain "}},
		{`TRUNCATE domains`, []string{"domain "}},
		{`NOTIFY tabard, 'nonsense'`, []string{"service(0) "}},
		{`NOTIFY tabard`, []string{"service(0) "}},
	} {
		exec(t, conn, tt.sql)
		var got []string
		for range tt.want {
			c := w.next(t)
			got = append(got, fmt.Sprint(c.Service, " ", c.Key))
		}
		slices.Sort(got)
		slices.Sort(tt.want)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: told %q, want %q", tt.sql, got, tt.want)
		}
	}
	// When it is told, the next answer is the new one.
	for i := range 50 {
		exec(t, conn, fmt.Sprintf(`INSERT INTO addresses VALUES ('a%d@x')`, i))
		c := w.next(t)
		if ok, err := b.Check(t.Context(), c.Service, c.Key); !ok || err != nil {
			t.Errorf("%v = %v, %v", c, ok, err)
		}
	}
	exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()`)
	if err := w.lost(t); err == nil || errors.Is(err, table.ErrUnsupported) {
		t.Errorf("after the connection was ended: %v", err)
	}
	w = watch(t, b)
	b.Close()
	if err := w.lost(t); err == nil {
		t.Error("a closed table is watched")
	}
}

func TestWatchOtherSchemas(t *testing.T) {
	url := pgtest.Database(t)
	query := "query_alias SELECT 'a' WHERE $1 = 'a'\n"
	silent := open(t, writeConf(t, url, query))
	t.Cleanup(func() { silent.Close() })
	if err := silent.(table.Watcher).Watch(t.Context(), func(table.Change) {}); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("without notify: %v", err)
	}
	b := open(t, writeConf(t, url, query+"notify Mail\"box\n"))
	t.Cleanup(func() { b.Close() })
	w := watch(t, b)
	exec(t, connect(t, url), `NOTIFY "Mail""box", 'alias Info@x'`)
	if c := w.next(t); c != (table.Change{Service: table.Alias, Key: "Info@x"}) {
		t.Errorf("told %v", c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.(table.Watcher).Watch(ctx, func(table.Change) {}); err == nil {
		t.Error("a watch without time goes on")
	}
}

// A server that stops in its tracks is noticed by its silence.
func TestWatchOfPausedServer(t *testing.T) {
	s := start(t, pgtest.Options{})
	b := open(t, writeConf(t, s.URL("postgres"), "query_alias SELECT 'a' WHERE $1 = 'a'\nnotify mail\n"))
	t.Cleanup(func() { b.Close() })
	w := watch(t, b)
	must(t, s.Pause())
	began := time.Now()
	if err := w.lost(t); err == nil || time.Since(began) > 2*(heartbeat+heartbeatWait) {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	must(t, s.Resume())
	w = watch(t, b)
	must(t, s.Kill())
	if err := w.lost(t); err == nil {
		t.Error("a watch of a server that was killed ends without error")
	}
}

func TestParsePayload(t *testing.T) {
	for payload, want := range map[string]string{
		"alias a":                       "[{alias a}]",
		"alias a b\nalias  c \n":        "[{alias a b} {alias  c }]",
		"credentials,userinfo u":        "[{credentials u} {userinfo u}]",
		"domain\n":                      "[{domain }]",
		"":                              "[{service(0) }]",
		"\n":                            "[{service(0) }]",
		"alias a\nnosuch b":             "[{service(0) }]",
		`{"table": "alias", "op": "U"}`: "[{service(0) }]",
		"alias, a":                      "[{service(0) }]",
	} {
		var got []table.Change
		parsePayload(payload, func(c table.Change) { got = append(got, c) })
		if fmt.Sprint(got) != want {
			t.Errorf("%q: %v, want %s", payload, got, want)
		}
	}
}

func FuzzParsePayload(f *testing.F) {
	f.Add("credentials,userinfo a\nalias b")
	f.Fuzz(func(t *testing.T, payload string) {
		n := 0
		parsePayload(payload, func(table.Change) { n++ })
		if n == 0 {
			t.Errorf("%q changes nothing", payload)
		}
	})
}
