package main

import (
	"path/filepath"
	"strings"
	"testing"

	"tabard/internal/pgtest"
)

// The same commands edit a PostgreSQL database, and a table asks it at once.
func TestProvisionPostgres(t *testing.T) {
	pg, err := pgtest.Start(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close() })
	name, err := pg.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	own, foreign := filepath.Join(s.dir, "own.conf"), filepath.Join(s.dir, "foreign.conf")
	s.write(own, "conninfo "+pg.URL(name)+"\n")
	s.write(foreign, "conninfo "+pg.URL(name)+"\nquery_alias SELECT target FROM aliases WHERE address = $1\n")
	s.write(s.config, `
table other "postgres:`+foreign+`"
table mail "postgres:`+own+`"
queue "sqlite:`+filepath.Join(s.dir, "queue.db")+`"
control "`+filepath.Join(s.dir, "control.sock")+`"
action "out" relay
match from any for domain <mail> action "out"
process smtpd user root
process mta user root
process lookup user root
process queue user root
process deliver user root
`)
	if out, err := program("domain", "ls", "-c", s.config).CombinedOutput(); err == nil || !strings.Contains(string(out), "run tabard migrate") {
		t.Errorf("before migrate: %v, %s", err, out)
	}
	if out := tabard(t, "migrate", "-c", s.config); !strings.Contains(out, "table mail: PostgreSQL: version 2, was 0") || strings.Contains(out, "table other") {
		t.Errorf("migrate: %s", out)
	}
	tabard(t, "domain", "add", "Example.ORG", "-c", s.config)
	tabard(t, "alias", "add", "info@example.org", "alice@example.org", "-c", s.config)
	tabard(t, "user", "add", "alice@example.org", "--random", "-c", s.config)
	if out := tabard(t, "user", "ls", "-c", s.config); !strings.Contains(out, "alice@example.org") {
		t.Errorf("user ls: %s", out)
	}
	if out := tabard(t, "lookup", "mail", "alias", "Info@Example.org", "-c", s.config); !strings.Contains(out, "alice@example.org") {
		t.Errorf("lookup: %s", out)
	}
	if out := tabard(t, "check", "-c", s.config); !strings.Contains(out, "configuration OK") {
		t.Errorf("check: %s", out)
	}
	if out, err := program("domain", "ls", "--table", "other", "-c", s.config).CombinedOutput(); err == nil || !strings.Contains(string(out), "own schema") {
		t.Errorf("a table with queries of its own: %v, %s", err, out)
	}
}
