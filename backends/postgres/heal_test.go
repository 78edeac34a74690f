package postgres

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tabard/internal/pgtest"
	"tabard/table"
)

// start starts a server for one test, with our schema in database postgres.
func start(t *testing.T, opt pgtest.Options) *pgtest.Server {
	t.Helper()
	s, err := pgtest.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	migrate(t, s.URL("postgres"))
	must(t, s.Exec(t.Context(), "postgres", `INSERT INTO aliases (address, target) VALUES ('root', 'admin')`))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// healthy asks for what is there.
func healthy(t *testing.T, b table.Backend, when string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if row, err := b.Lookup(ctx, table.Alias, "root"); err != nil || len(row) != 1 || row[0] != "admin" {
		t.Errorf("%s: %q, %v", when, row, err)
	}
}

// away asks for what is not there, and expects to hear so within a time, as an
// error that is not "not found".
func away(t *testing.T, b table.Backend, when string, limit time.Duration) error {
	t.Helper()
	began := time.Now()
	_, err := b.Lookup(t.Context(), table.Alias, "nobody")
	if err == nil || errors.Is(err, table.ErrNotFound) {
		t.Errorf("%s: %v; want a temporary error", when, err)
	}
	if d := time.Since(began); d > limit {
		t.Errorf("%s: told after %s", when, d)
	}
	return err
}

func TestServerComesAndGoes(t *testing.T) {
	s := start(t, pgtest.Options{})
	must(t, s.Stop())
	b := open(t, s.URL("postgres"))
	t.Cleanup(func() { b.Close() })
	for range 3 {
		away(t, b, "down at the start", time.Second)
	}
	must(t, s.Launch(t.Context()))
	healthy(t, b, "first question")
	for what, stop := range map[string]func() error{"stopped": s.Stop, "killed": s.Kill} {
		must(t, stop())
		away(t, b, what, time.Second)
		must(t, s.Launch(t.Context()))
		healthy(t, b, "after it was "+what)
		must(t, stop())
		must(t, s.Launch(t.Context()))
		healthy(t, b, "nobody noticed that it was "+what)
	}
}

// However many ask, a server that is down costs them little, and us nothing.
func TestManyAskAServerThatIsDown(t *testing.T) {
	s := start(t, pgtest.Options{})
	b := open(t, s.URL("postgres"))
	t.Cleanup(func() { b.Close() })
	healthy(t, b, "before")
	must(t, s.Kill())
	before := runtime.NumGoroutine()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			if _, err := b.Lookup(t.Context(), table.Alias, fmt.Sprint(i)); err == nil || errors.Is(err, table.ErrNotFound) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
	for until := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+5; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	must(t, s.Launch(t.Context()))
	healthy(t, b, "after")
}

// settled waits until no connection is being made: one that is ended in its first
// moments, too, costs the question that comes to it from one that was ended before.
func settled(b table.Backend) {
	p := b.(*Table).pool
	for {
		p.mu.Lock()
		connecting, wake := p.connecting, p.wake
		p.mu.Unlock()
		if !connecting {
			return
		}
		<-wake
	}
}

func TestSessionsAreEnded(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, `INSERT INTO aliases (address, target) VALUES ('root', 'admin')`)
	b := open(t, url)
	t.Cleanup(func() { b.Close() })
	for range 5 {
		together(t, b, table.Alias, []string{"a", "b", "c", "d"})
		settled(b)
		exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()`)
		healthy(t, b, "sessions ended")
	}
	// What was prepared is gone, or not what it was.
	exec(t, conn, `ALTER TABLE aliases ALTER COLUMN target TYPE varchar(99)`)
	healthy(t, b, "another type")
	if err := b.(*Table).pool.do(t.Context(), func(ctx context.Context, l *link) error {
		_, err := l.Exec(ctx, "DEALLOCATE ALL")
		return err
	}); err != nil {
		t.Error(err)
	}
	healthy(t, b, "nothing prepared")
}

func TestPausedServer(t *testing.T) {
	s := start(t, pgtest.Options{})
	b := open(t, writeConf(t, s.URL("postgres", "connect_timeout=1"), "timeout 300ms\nquery_alias "+strings.TrimSuffix(ownQuery(t, table.Alias), " ORDER BY id")+"\n"))
	t.Cleanup(func() { b.Close() })
	healthy(t, b, "before")
	must(t, s.Pause())
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { away(t, b, fmt.Sprint("paused, ", i), 6*time.Second) })
	}
	wg.Wait()
	err := away(t, b, "known to be paused", time.Second)
	if !strings.Contains(fmt.Sprint(err), "query_alias") {
		t.Errorf("%v", err)
	}
	must(t, s.Resume())
	healthy(t, b, "resumed")
	if n := sessions(t, s); n > defaultSize {
		t.Errorf("%d sessions", n)
	}
}

// sessions counts those of tables, when the ones given up have ended.
func sessions(t *testing.T, s *pgtest.Server) (n int) {
	t.Helper()
	conn := connect(t, s.URL("postgres"))
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tabard'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n <= defaultSize || time.Now().After(until) {
			return n
		}
	}
}

func TestWrongPassword(t *testing.T) {
	url, conn := newDB(t)
	role := "r" + strings.TrimPrefix(url[strings.LastIndex(url, "/"):], "/t")[:12]
	exec(t, conn, `DO $$ BEGIN CREATE ROLE with_password; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
INSERT INTO aliases (address, target) VALUES ('root', 'admin');
CREATE ROLE `+role+` LOGIN PASSWORD 'Richtig' IN ROLE with_password; GRANT SELECT ON ALL TABLES IN SCHEMA public TO `+role)
	b := open(t, url+"&user="+role+"&password=Geheim")
	t.Cleanup(func() { b.Close() })
	err := away(t, b, "wrong password", time.Second)
	if text := fmt.Sprint(err, b.(table.Pinger).Ping(t.Context())); !strings.Contains(text, "password authentication failed") || strings.Contains(text, "Geheim") {
		t.Errorf("%s", text)
	}
	exec(t, conn, `ALTER ROLE `+role+` PASSWORD 'Geheim'`)
	healthy(t, b, "right password")
	exec(t, conn, `REVOKE SELECT ON aliases FROM `+role)
	if err := away(t, b, "no privilege", time.Second); !strings.Contains(fmt.Sprint(err), "query_alias: ERROR: permission denied") {
		t.Errorf("%v", err)
	}
	exec(t, conn, `DROP OWNED BY `+role+`; DROP ROLE `+role)
}

// occupy makes n connections, as many as the server lets in: those that were
// closed before count until their processes have ended.
func occupy(t *testing.T, url string, n int) (conns []*pgx.Conn) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); len(conns) < n; time.Sleep(5 * time.Millisecond) {
		conn, err := pgx.Connect(t.Context(), url)
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) })
			conns = append(conns, conn)
		} else if !strings.Contains(err.Error(), "53300") || time.Now().After(until) {
			t.Fatal(err)
		}
	}
	return conns
}

// leave closes a connection and waits for the end of the process that served it,
// which the server counts until then.
func leave(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	pid := int(conn.PgConn().PID())
	must(t, conn.Close(t.Context()))
	for until := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("process %d of a closed connection does not end", pid)
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	s := start(t, pgtest.Options{Settings: []string{"max_connections = 6", "superuser_reserved_connections = 3"}})
	must(t, s.Exec(t.Context(), "postgres", "CREATE ROLE plain LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain"))
	b := open(t, s.URL("postgres", "user=plain"))
	t.Cleanup(func() { b.Close() })
	others := occupy(t, s.URL("postgres", "user=plain"), 3)
	if err := away(t, b, "no connection left", time.Second); !strings.Contains(fmt.Sprint(err), "53300") {
		t.Errorf("%v", err)
	}
	leave(t, others[0])
	healthy(t, b, "one connection left")
	var keys []string
	for i := range 300 {
		keys = append(keys, fmt.Sprint(i))
	}
	for i, err := range together(t, b, table.Alias, keys) {
		if !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%d: with one connection: %v", i, err)
		}
	}
}

func TestSeveralHosts(t *testing.T) {
	one, two := start(t, pgtest.Options{}), start(t, pgtest.Options{})
	must(t, two.Exec(t.Context(), "postgres", `UPDATE aliases SET target = 'second'`))
	url := fmt.Sprintf("postgres://127.0.0.1:%d,127.0.0.1:%d/postgres?user=%s&sslmode=disable", one.Port, two.Port, pgtest.User)
	any, writable := open(t, url), open(t, url+"&target_session_attrs=read-write")
	t.Cleanup(func() { any.Close(); writable.Close() })
	ask := func(b table.Backend, when, want string) {
		t.Helper()
		row, err := b.Lookup(t.Context(), table.Alias, "root")
		if err != nil || row[0] != want {
			t.Errorf("%s: %q, %v; want %s", when, row, err, want)
		}
	}
	ask(any, "both are there", "admin")
	ask(writable, "both can be written to", "admin")
	w := watch(t, writable)
	must(t, one.Exec(t.Context(), "postgres", "ALTER SYSTEM SET default_transaction_read_only = on"))
	must(t, one.Stop())
	if err := w.lost(t); err == nil {
		t.Error("the watch ended without error")
	}
	ask(any, "the first is gone", "second")
	must(t, one.Launch(t.Context()))
	ask(writable, "the first only reads", "second")
	watch(t, writable)
	must(t, two.Exec(t.Context(), "postgres", `UPDATE aliases SET target = 'third'`))
	must(t, two.Stop())
	ask(any, "the second is gone", "admin")
	away(t, writable, "none can be written to", 2*time.Second)
	must(t, two.Launch(t.Context()))
	ask(writable, "the second is back", "third")
}

func TestTLS(t *testing.T) {
	s, other := start(t, pgtest.Options{TLS: true}), start(t, pgtest.Options{TLS: true})
	for options, want := range map[string]string{
		"sslmode=verify-full sslrootcert=" + s.CAFile:                     "",
		"sslmode=verify-full sslrootcert=" + s.CAFile + " host=localhost": "",
		"sslmode=verify-full sslrootcert=" + other.CAFile:                 "certificate",
		"sslmode=verify-full sslrootcert=" + s.CAFile + " host=127.0.0.2": "127.0.0.2",
		"sslmode=require": "",
		"sslmode=disable": "",
	} {
		b := open(t, s.URL("postgres", strings.Fields(options)...))
		if want == "" {
			healthy(t, b, options)
		} else if err := away(t, b, options, 2*time.Second); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v", options, err)
		}
		b.Close()
	}
	must(t, s.Exec(t.Context(), "postgres", "ALTER SYSTEM SET ssl = off"))
	must(t, s.Stop())
	must(t, s.Launch(t.Context()))
	b := open(t, s.URL("postgres", "sslmode=require"))
	t.Cleanup(func() { b.Close() })
	away(t, b, "a server without TLS", 2*time.Second)
}

func TestUnixSocket(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, `INSERT INTO aliases (address, target) VALUES ('root', 'admin')`)
	name := strings.TrimPrefix(url[strings.LastIndex(url, "/"):strings.Index(url, "?")], "/")
	b := open(t, pgtest.Shared(t).SocketURL(name))
	t.Cleanup(func() { b.Close() })
	healthy(t, b, "by the UNIX socket")
}
