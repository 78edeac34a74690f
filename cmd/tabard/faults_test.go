package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that migrates the test's database

	"tabard/bench/load"
	"tabard/internal/ldaptest"
	"tabard/internal/pgtest"
	"tabard/migrations"
)

// faultRounds is how often every fault strikes each server.
const faultRounds = 1

// backend is a database server that a test torments.
type backend interface {
	Stop() error
	Kill() error
	Pause() error
	Resume() error
}

// torment is a server with what it takes to bring it back.
type torment struct {
	name    string
	server  backend
	start   func() error
	replace func() error // puts another in its place, with the same rows; nil: the same as a restart
}

// strikes are faults of a server, which leave one that works.
var strikes = map[string]func(t torment) error{
	"restart": func(t torment) error { return inTurn(t.server.Stop, t.start) },
	"crash":   func(t torment) error { return inTurn(t.server.Kill, hold, t.start) },
	"pause":   func(t torment) error { return inTurn(t.server.Pause, hold, t.server.Resume) },
	"replace": func(t torment) error {
		if t.replace == nil {
			return inTurn(t.server.Stop, hold, t.start)
		}
		return t.replace()
	},
}

// hold keeps a fault up for a moment under load; it waits for no event.
func hold() error {
	pause(700 * time.Millisecond)
	return nil
}

func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestBackendsFailWhileMailFlows stops, kills, pauses and restarts PostgreSQL and
// slapd under load: no acknowledged message is lost, no recipient refused for
// good, nothing bounced, and mail flows again without a restart of ours.
func TestBackendsFailWhileMailFlows(t *testing.T) {
	received := map[string]*receipts{"sql": newReceipts(), "dir": newReceipts()}
	s, torments := startOnBackends(t, map[string]string{
		"sql": startSink(t, received["sql"]), "dir": startSink(t, received["dir"]),
	})
	ctx, stopLoad := context.WithCancel(context.Background())
	defer stopLoad()
	acked := map[string]*acks{"sql": {seen: map[int64]bool{}}, "dir": {seen: map[int64]bool{}}}
	results := make(map[string]load.Result)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name := range received {
		wg.Go(func() {
			res, _ := load.Run(ctx, load.Options{
				Addr: s.smtp, Sessions: 10, PerConn: 3, Size: crashSize, From: "load@client.example",
				To: "n%d@" + name + ".example", Acked: acked[name].add, Retry: true,
			})
			mu.Lock()
			defer mu.Unlock()
			results[name] = res
		})
	}
	for range faultRounds {
		for _, victim := range torments {
			for name, strike := range strikes {
				s.flows(acked)
				if err := strike(victim); err != nil {
					t.Fatalf("%s of %s: %v", name, victim.name, err)
				}
				s.flows(acked)
			}
		}
	}
	stopLoad()
	wg.Wait()
	s.drained()
	for name, got := range received {
		res := results[name]
		t.Logf("%s: sent %d, acknowledged %d, delivered %d, duplicated %d, deferred or cut %d",
			name, res.Sent, res.Acked, len(got.copies), got.duplicates(), res.Errors)
		if n := got.lacking(acked[name].seen); n > 0 {
			t.Errorf("%s: %d acknowledged messages are lost", name, n)
		}
		if len(got.corrupt) > 0 {
			t.Errorf("%s: %d messages arrived corrupt", name, len(got.corrupt))
		}
		if res.Acked == 0 || res.Errors == 0 {
			t.Errorf("%s: the test did not bite: %+v", name, res)
		}
	}
	s.deniedNothing()
}

// flows waits until mail of every kind is acknowledged that was not before.
func (s *server) flows(acked map[string]*acks) {
	s.t.Helper()
	for name, a := range acked {
		a.mu.Lock()
		before := len(a.seen)
		a.mu.Unlock()
		eventually(s.t, "mail flows for "+name, func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return len(a.seen) > before+20
		})
	}
}

// deniedNothing looks for permanent refusals and bounces in the log.
func (s *server) deniedNothing() {
	s.t.Helper()
	for line := range strings.Lines(s.log.String()) {
		denied := strings.Contains(line, `result="5`) && !strings.Contains(line, `result="503`)
		if denied || strings.Contains(line, `result=PermFail`) || strings.Contains(line, "queue bounce") {
			s.t.Errorf("denied for good: %s", line)
			return
		}
	}
}

// startOnBackends runs a server whose domains, aliases and routes are rows of
// PostgreSQL and entries of slapd. Every recipient is one never asked for before,
// so that each costs questions to the backends.
func startOnBackends(t *testing.T, sinks map[string]string) (*server, []torment) {
	t.Helper()
	ctx := t.Context()
	pg, err := pgtest.Start(ctx, pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close() })
	dir, err := ldaptest.New(ctx, ldaptest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	database := provisionPostgres(t, pg, sinks["sql"])
	spare := provisionPostgres(t, pg, sinks["sql"])
	if err := dir.Load(ctx, directoryRows(dir, sinks["dir"])); err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	_, smtpPort, _ := net.SplitHostPort(s.smtp)
	conf := filepath.Join(s.dir, "dir.conf")
	s.write(conf, strings.Join([]string{
		"url " + dir.URL, "username " + dir.RootDN, "password " + ldaptest.Password, "basedn ou=mail," + dir.Suffix, "timeout 2s",
		"domain_filter (&(objectClass=domain)(dc=%s))", "domain_attributes dc",
		"alias_filter (&(objectClass=nisMailAlias)(cn=%s))", "alias_attributes rfc822MailMember",
		"relayhost_filter (&(objectClass=device)(cn=%s))", "relayhost_attributes description",
	}, "\n"))
	s.write(s.config, asRoot()+fmt.Sprintf(`
table sql "%s"
table dir "ldap:%s"
control "%s"
queue "sqlite:%s"
queue retry 1s
hostname "mx.example"
resolver 127.0.0.1:1
listen on 127.0.0.1 port %s
action "sql" expand-only virtual <sql>
action "sqlout" relay domain <sql>
action "dir" expand-only virtual <dir>
action "dirout" relay domain <dir>
match from any for domain "sql-out.example" action "sqlout"
match from any for domain "dir-out.example" action "dirout"
match from any for domain <sql> action "sql"
match from any for domain <dir> action "dir"
`, pg.URL(database), conf, filepath.Join(s.dir, "control.sock"), filepath.Join(s.dir, "queue.db"), smtpPort))
	s.run()
	t.Cleanup(s.stop)
	return s, []torment{
		{
			name: "PostgreSQL", server: pg, start: func() error { return pg.Launch(ctx) },
			replace: func() error { return swap(ctx, pg, database, spare) },
		},
		{name: "slapd", server: dir, start: func() error { return dir.Start(ctx) }},
	}
}

// swap puts another database under the name of one in use. For a moment there is
// none of that name.
func swap(ctx context.Context, pg *pgtest.Server, name, spare string) error {
	for _, statement := range []string{
		"ALTER DATABASE " + name + " ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'",
		"ALTER DATABASE " + name + " RENAME TO swapped_out",
		"ALTER DATABASE " + spare + " RENAME TO " + name,
		"ALTER DATABASE swapped_out RENAME TO " + spare,
		"ALTER DATABASE " + spare + " ALLOW_CONNECTIONS true",
	} {
		if err := pg.Exec(ctx, "postgres", statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// provisionPostgres makes a database with our schema and what the test needs.
func provisionPostgres(t *testing.T, pg *pgtest.Server, sink string) string {
	t.Helper()
	name, err := pg.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", pg.URL(name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, _, err := migrations.Up(t.Context(), db, migrations.Postgres, migrations.Provision); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		`INSERT INTO domains (name) VALUES ('sql.example')`,
		`INSERT INTO aliases (address, target) VALUES ('@sql.example', 'x@sql-out.example')`,
		`INSERT INTO relays (match, url) VALUES ('sql-out.example', 'smtp://` + sink + `')`,
	} {
		if _, err := db.ExecContext(t.Context(), row); err != nil {
			t.Fatalf("%s: %v", row, err)
		}
	}
	return name
}

func directoryRows(s *ldaptest.Server, sink string) string {
	base := "ou=mail," + s.Suffix
	return fmt.Sprintf(`dn: %[1]s
objectClass: organizationalUnit
ou: mail

dn: dc=dir.example,%[1]s
objectClass: domain
dc: dir.example

dn: cn=@dir.example,%[1]s
objectClass: nisMailAlias
cn: @dir.example
rfc822MailMember: x@dir-out.example

dn: cn=dir-out.example,%[1]s
objectClass: device
cn: dir-out.example
description: smtp://%[2]s
`, base, sink)
}

// asRoot says who the processes become when the test runs as root.
func asRoot() string {
	if os.Getuid() != 0 {
		return ""
	}
	return rootNote
}

// newServer is a server that has a directory and an address, and no
// configuration yet.
func newServer(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	return &server{t: t, dir: dir, config: filepath.Join(dir, "tabard.conf"), smtp: freeAddr(t)}
}

func (s *server) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}
