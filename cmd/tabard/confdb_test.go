package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"tabard/internal/pgtest"
	"tabard/migrations"
)

// confDatabase is a database with configurations that a test writes to.
type confDatabase struct {
	t      *testing.T
	db     *sql.DB
	insert string
}

func newConfDatabase(t *testing.T, driver, dsn string, dialect string, insert string) *confDatabase {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, _, err := migrations.Up(t.Context(), db, dialect, migrations.Provision); err != nil {
		t.Fatal(err)
	}
	return &confDatabase{t, db, insert}
}

func (c *confDatabase) put(name string, version int, text string) {
	c.t.Helper()
	c.exec(c.insert, name, version, text)
}

func (c *confDatabase) exec(query string, args ...any) {
	c.t.Helper()
	if _, err := c.db.ExecContext(c.t.Context(), query, args...); err != nil {
		c.t.Fatal(err)
	}
}

// startArgs are those of a server whose configuration is in a database.
func startArgs(url string) []string {
	args := []string{"run", "-c", url}
	if asRoot() != "" {
		args = append(args, "--config-user", "root")
	}
	return args
}

// followsDatabase is the life of a server on a configuration in a database that
// has one called default.
func followsDatabase(t *testing.T, s *server, c *confDatabase, url string) {
	t.Helper()
	sink := startSink(t, newReceipts())
	added := freeAddr(t)
	greets := func(what, addr, host string) {
		t.Helper()
		eventually(t, what, func() bool { return strings.Contains(banner(t, addr), host) })
	}
	greets("it starts", s.smtp, "mx1.example")
	old := dialSMTP(t, s.smtp)
	c.put("default", 2, s.conf("mx2.example", sink, s.smtp, added))
	greets("a new version is in force", added, "mx2.example")
	old.send("EHLO client.example", "250") // still there
	c.put("default", 3, s.conf("mx3.example", sink, s.smtp)+"\nnonsense here\n")
	s.log.await(t, `old one stays in force.*config default:\d+:\d+`)
	status := func() string { return tabard(t, "-c", url, "status") }
	if st := status(); !strings.Contains(st, "config default:") || strings.Contains(st, "secret") {
		t.Errorf("status:\n%s", st)
	}
	greets("the old one stays", added, "mx2.example")
	if out := tabardFails(t, exConfig, "-c", url, "reload"); !strings.Contains(out, "nonsense") {
		t.Errorf("reload says %q", out)
	}
	c.put("default", 4, s.conf("mx4.example", sink, s.smtp))
	greets("the fault is mended", s.smtp, "mx4.example")
	if st := status(); strings.Contains(st, "failed") {
		t.Errorf("status:\n%s", st)
	}
	c.exec("DELETE FROM configs")
	s.log.await(t, `old one stays in force.*no configuration called`)
	greets("without a row the old one stays", s.smtp, "mx4.example")
	old.send("QUIT", "221")
}

// TestConfigurationFromSQLite follows a file that another process writes to.
func TestConfigurationFromSQLite(t *testing.T) {
	s := newServer(t)
	path := filepath.Join(s.dir, "conf.db")
	c := newConfDatabase(t, "sqlite", path+"?_pragma=busy_timeout(10000)", migrations.SQLite, "INSERT INTO configs (name, version, body) VALUES (?, ?, ?)")
	c.put("default", 1, s.conf("mx1.example", startSink(t, newReceipts()), s.smtp))
	c.put("other", 1, s.conf("other.example", startSink(t, newReceipts()), s.smtp))
	s.start(startArgs("sqlite:" + path)...)
	s.ready()
	t.Cleanup(s.stop)
	followsDatabase(t, s, c, "sqlite:"+path)
	s.stop()
	s.start(append(startArgs("sqlite:"+path), "--config-name", "other")...)
	if s.log.await(t, `ready|program ended`)[0] == "ready" {
		t.Error("it started without a configuration")
	}
	<-s.done
	if code := s.cmd.ProcessState.ExitCode(); code != exConfig {
		t.Errorf("without a row of that name it ended with %d:\n%s", code, s.log)
	}
	c.put("other", 2, s.conf("other.example", startSink(t, newReceipts()), s.smtp))
	s.start(append(startArgs("sqlite:"+path), "--config-name", "other")...)
	s.ready()
	if b := banner(t, s.smtp); !strings.Contains(b, "other.example") {
		t.Errorf("banner %q", b)
	}
	if out := tabard(t, "-c", "sqlite:"+path, "--config-name", "other", "check"); strings.Contains(out, "error") {
		t.Errorf("check: %s", out)
	}
}

// TestConfigurationFromPostgres starts while the server is down, and goes on when
// it is down later.
func TestConfigurationFromPostgres(t *testing.T) {
	s := newServer(t)
	pg, err := pgtest.Start(t.Context(), pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close() })
	database, err := pg.CreateDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	url := pg.URL(database)
	c := newConfDatabase(t, "pgx", url, migrations.Postgres, "INSERT INTO configs (name, version, body) VALUES ($1, $2, $3)")
	c.put("default", 1, s.conf("mx1.example", startSink(t, newReceipts()), s.smtp))
	if err := pg.Stop(); err != nil {
		t.Fatal(err)
	}
	s.start(startArgs(url)...)
	t.Cleanup(s.stop)
	s.log.await(t, `cannot be read from the database at the moment`)
	if err := pg.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.ready()
	// The pool of the test lost its connections too.
	eventually(t, "the database answers", func() bool { return c.db.PingContext(t.Context()) == nil })
	followsDatabase(t, s, c, url)
	if err := pg.Stop(); err != nil {
		t.Fatal(err)
	}
	if b := banner(t, s.smtp); !strings.Contains(b, "mx4.example") {
		t.Errorf("without the database: %q", b)
	}
	if err := pg.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the database answers again", func() bool { return c.db.PingContext(t.Context()) == nil })
	c.put("default", 9, s.conf("mx9.example", startSink(t, newReceipts()), s.smtp))
	eventually(t, "it is followed again", func() bool { return strings.Contains(banner(t, s.smtp), "mx9.example") })
}

// TestFollowerHearsNewsOnly: what the database tells again, because the process
// that reads it was started again, is no reason for a reload.
func TestFollowerHearsNewsOnly(t *testing.T) {
	f := &follower{news: make(chan struct{}, 1)}
	for i, tt := range []struct {
		text, fault string
		news        bool
	}{
		{"", "no configuration", true}, {"", "no configuration", false}, {"a", "", true}, {"a", "", false}, {"b", "", true},
		{"", "deleted", true}, {"", "deleted", false}, {"b", "", true}, {"b", "", false},
	} {
		f.told(configPiece{Name: "default", Fault: tt.fault}, []byte(tt.text))
		news := false
		select {
		case <-f.news:
			news = true
		default:
		}
		if news != tt.news {
			t.Errorf("%d: %q, %q: news: %v", i, tt.text, tt.fault, news)
		}
		if f.fault != tt.fault || tt.fault == "" && f.text.Text != tt.text {
			t.Errorf("%d: %q, %q: knows %+v, %q", i, tt.text, tt.fault, f.text, f.fault)
		}
	}
}
