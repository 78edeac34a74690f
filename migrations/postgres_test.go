package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tabard/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// openPostgres opens the database of an URL; a new one has no tables.
func openPostgres(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := OpenPostgres(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func provisioned(t *testing.T) (url string, db *sql.DB) {
	t.Helper()
	url = pgtest.Database(t)
	db = openPostgres(t, url)
	if _, _, err := Up(t.Context(), db, Postgres, Provision); err != nil {
		t.Fatal(err)
	}
	return url, db
}

func TestPostgresUp(t *testing.T) {
	ctx := t.Context()
	db := openPostgres(t, pgtest.Database(t))
	have, want, err := Status(ctx, db, Postgres, Provision)
	if err != nil || have != 0 || want < 1 {
		t.Fatalf("Status of an empty database = %d, %d, %v", have, want, err)
	}
	for _, from := range []int64{0, want} {
		if f, to, err := Up(ctx, db, Postgres, Provision); err != nil || f != from || to != want {
			t.Fatalf("Up = %d, %d, %v; want %d, %d", f, to, err, from, want)
		}
	}
	if _, err := db.Exec("INSERT INTO tabard_provision_version (version_id, is_applied) VALUES (9999, true)"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Up(ctx, db, Postgres, Provision); !errors.Is(err, ErrNewer) {
		t.Fatalf("Up on a newer database: %v", err)
	}
	if _, _, err := Up(ctx, db, Postgres, "nosuch"); err == nil {
		t.Error("unknown schema accepted")
	}
}

// The schema goes where the search path says, beside what is in the others.
func TestPostgresSearchPath(t *testing.T) {
	ctx := t.Context()
	url, db := provisioned(t)
	if _, err := db.Exec("CREATE SCHEMA mail"); err != nil {
		t.Fatal(err)
	}
	other := openPostgres(t, url+"&search_path=mail")
	if have, _, err := Status(ctx, other, Postgres, Provision); err != nil || have != 0 {
		t.Fatalf("Status = %d, %v", have, err)
	}
	if _, _, err := Up(ctx, other, Postgres, Provision); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec("INSERT INTO mail.domains (name) VALUES ('a.example')"); err != nil {
		t.Error(err)
	}
}

func TestPostgresUpAtOnce(t *testing.T) {
	url := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 4 {
		db := openPostgres(t, url)
		wg.Go(func() {
			if _, to, err := Up(t.Context(), db, Postgres, Provision); err != nil || to < 1 {
				t.Errorf("Up = %d, %v", to, err)
			}
		})
	}
	wg.Wait()
	db := openPostgres(t, url)
	var n int
	if err := db.QueryRow("SELECT count(*) FROM tabard_provision_version WHERE version_id = 1").Scan(&n); err != nil || n != 1 {
		t.Errorf("version 1 is recorded %d times, %v", n, err)
	}
	if _, err := db.Exec("INSERT INTO tabard_provision_version (version_id, is_applied) VALUES (1, true)"); err == nil {
		t.Error("a version was recorded twice")
	}
}

func TestPostgresUpEndsWithContext(t *testing.T) {
	url := pgtest.Database(t)
	db := openPostgres(t, url)
	holder, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	lock := advisoryLock(tableName(Provision))
	if err := lock.SessionLock(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, _, err := Up(ctx, db, Postgres, Provision); err == nil || ctx.Err() == nil {
		t.Errorf("Up while another one migrates: %v", err)
	}
}

// Both dialects have the same tables and columns.
func TestPostgresNames(t *testing.T) {
	_, pg := provisioned(t)
	lite := open(t, t.TempDir()+"/t.db")
	if _, _, err := Up(t.Context(), lite, SQLite, Provision); err != nil {
		t.Fatal(err)
	}
	names := func(db *sql.DB, query string) []string {
		t.Helper()
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var all []string
		for rows.Next() {
			var table, column string
			if err := rows.Scan(&table, &column); err != nil {
				t.Fatal(err)
			}
			all = append(all, table+"."+column)
		}
		slices.Sort(all)
		return all
	}
	want := names(lite, `SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c
WHERE m.type = 'table' AND m.name NOT LIKE 'tabard%' AND m.name NOT LIKE 'sqlite%'`)
	have := names(pg, `SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name NOT LIKE 'tabard%'`)
	if len(have) == 0 || !slices.Equal(have, want) {
		t.Errorf("PostgreSQL has\n%q\nSQLite has\n%q", have, want)
	}
}

func TestPostgresConstraints(t *testing.T) {
	_, db := provisioned(t)
	for _, tt := range []struct {
		sql string
		ok  bool
	}{
		{"INSERT INTO users (name) VALUES ('U@x.example')", true},
		{"INSERT INTO users (name) VALUES ('u@X.example')", false},
		{"INSERT INTO users (name, home) VALUES ('U@X.EXAMPLE', '/x') ON CONFLICT (lower(name)) DO UPDATE SET home = excluded.home", true},
		{"INSERT INTO users (name, uid) VALUES ('b', -1)", false},
		{"INSERT INTO users (name, uid) VALUES ('b', 4294967295)", false},
		{"INSERT INTO users (name, home) VALUES ('c', 'relative')", false},
		{"INSERT INTO users (name, uid, home) VALUES ('d', NULL, '')", true},
		{"INSERT INTO domains (name) VALUES ('')", false},
		{"INSERT INTO aliases (address, target) VALUES ('a', 'b'), ('a', 'c')", true},
		{"INSERT INTO aliases (address, target) VALUES ('A', 'b')", false},
		{"INSERT INTO aliases (address, target) VALUES ('A', repeat('b', 2001))", false},
		{"INSERT INTO senders (\"user\", address) VALUES ('a', 'b'), ('A', 'c')", true},
		{"INSERT INTO senders (\"user\", address) VALUES ('A', 'B')", false},
		{"INSERT INTO certificates (name, chain, key) VALUES ('mx', 'c1', 'k1'), ('mx', 'c2', 'k2')", true},
		{"INSERT INTO relays (match, url) VALUES ('*', 'smtp://a')", true},
		{"INSERT INTO relays (match, url, weight) VALUES ('*', 'smtp://b', -1)", false},
		{"INSERT INTO configs (name, body, version) VALUES ('a', '', 1), ('A', '', 2)", true},
		{"INSERT INTO configs (name, body, version) VALUES ('A', '', 1)", false},
	} {
		if _, err := db.Exec(tt.sql); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.sql, err)
		}
	}
}

// Look-ups by the key in lower case find an index.
func TestPostgresIndexes(t *testing.T) {
	_, db := provisioned(t)
	for _, q := range []string{
		"SELECT target FROM aliases WHERE lower(address) = 'a' ORDER BY id",
		"SELECT name FROM users WHERE lower(name) = 'a'",
		"SELECT name FROM domains WHERE strpos(name, '*') > 0",
		"SELECT url FROM relays WHERE lower(match) = 'a'",
		"SELECT url FROM relays WHERE match = '*'",
		"DELETE FROM aliases WHERE address = 'a'",
		"SELECT address FROM senders WHERE lower(\"user\") = 'a'",
		"SELECT key FROM dkim_keys WHERE lower(domain) = 'a'",
		"SELECT body FROM configs WHERE lower(name) = 'a' ORDER BY version DESC LIMIT 1",
	} {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		var plan strings.Builder
		if _, err := tx.Exec("SET LOCAL enable_seqscan = off"); err != nil {
			t.Fatal(err)
		}
		rows, err := tx.Query("EXPLAIN " + q)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan.WriteString(line + "\n")
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan.String(), "Index") || strings.Contains(plan.String(), "Seq Scan") {
			t.Errorf("%s\n%s", q, &plan)
		}
	}
}

// told runs a statement and returns the lines that it notified, in order of the
// alphabet.
func told(t *testing.T, url, sql string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	// The end is marked by a notification of ours, which comes last.
	for _, q := range []string{"LISTEN tabard", sql, "NOTIFY tabard, '.'"} {
		if _, err := conn.PgConn().Exec(ctx, q).ReadAll(); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	var lines []string
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload == "." {
			slices.Sort(lines)
			return lines
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(n.Payload, "\n"), "\n")...)
	}
}

func TestPostgresNotify(t *testing.T) {
	url, _ := provisioned(t)
	for _, tt := range []struct {
		sql  string
		want []string
	}{
		{"INSERT INTO aliases (address, target) VALUES ('Info@example.org', 'a'), ('Info@example.org', 'b'), ('x y', 'b')",
			[]string{"alias Info@example.org", "alias x y"}},
		{"UPDATE aliases SET address = 'new' WHERE address = 'x y'", []string{"alias new", "alias x y"}},
		{"UPDATE aliases SET address = 'new' WHERE address = 'nobody'", nil},
		{"DELETE FROM aliases WHERE address = 'new'", []string{"alias new"}},
		{"INSERT INTO users (name) VALUES ('alice')", []string{"certauth", "credentials,userinfo,string alice"}},
		{"INSERT INTO relay_credentials VALUES ('isp', 'u', 'p')", []string{"credentials isp"}},
		{"INSERT INTO senders (\"user\", address) VALUES ('u', 'a')", []string{"mailaddrmap u"}},
		{"TRUNCATE users", []string{"certauth", "credentials,userinfo,string"}},
		{"INSERT INTO domains SELECT 'd' || n FROM generate_series(1, 101) n", []string{"domain"}},
		{"UPDATE domains SET created = now() WHERE name = 'd1' OR name = 'd2'", []string{"domain d1", "domain d2"}},
		{"DELETE FROM domains", []string{"domain"}},
		{"INSERT INTO domains SELECT 'd' || n FROM generate_series(1, 10000) n", []string{"domain"}},
		// More than a notification can carry.
		{"INSERT INTO client_identities SELECT repeat('i', 1000) || n, 'u' FROM generate_series(1, 9) n", []string{"certauth"}},
		// What nobody can ask for.
		{"INSERT INTO hostnames VALUES (E'a\\nb', 'h')", nil},
		{"BEGIN; INSERT INTO sources VALUES ('192.0.2.1'); INSERT INTO networks VALUES ('local'); COMMIT", []string{"netaddr local", "source 192.0.2.1"}},
		{"BEGIN; INSERT INTO sources VALUES ('192.0.2.2'); ROLLBACK", nil},
	} {
		if got := told(t, url, tt.sql); !slices.Equal(got, tt.want) {
			t.Errorf("%s\ntold %q, want %q", tt.sql, got, tt.want)
		}
	}
}

func TestPostgresWatchOfOthers(t *testing.T) {
	url, db := provisioned(t)
	for range 2 { // again is no fault
		if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS "Mail box" ("User" int, pw text);
SELECT tabard_watch('"Mail box"', 'credentials', 'User', 'alias', '', 'string', 'pw')`); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := told(t, url, `INSERT INTO "Mail box" VALUES (7, NULL)`), []string{"alias", "credentials 7"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if _, err := db.Exec(`SELECT tabard_watch('users', 'credentials')`); err == nil {
		t.Error("half a pair is accepted")
	}
}

func TestBusyIsRepeated(t *testing.T) {
	_, db := provisioned(t)
	_, err := db.Exec("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$")
	if !isBusy(fmt.Errorf("wrapped: %w", err)) || isBusy(errors.New("other")) {
		t.Errorf("%v", err)
	}
}

// The file for other schemas makes the same functions as the migration.
func TestPostgresNotifyFile(t *testing.T) {
	text, err := os.ReadFile("../docs/examples/postgres-notify.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, ours := provisioned(t)
	theirs := openPostgres(t, pgtest.Database(t))
	for range 2 { // loading it again is no fault
		if _, err := theirs.Exec(string(text)); err != nil {
			t.Fatal(err)
		}
	}
	functions := func(db *sql.DB) (text string) {
		t.Helper()
		err := db.QueryRow("SELECT string_agg(pg_get_functiondef(oid), '' ORDER BY proname) FROM pg_proc WHERE proname LIKE 'tabard%'").Scan(&text)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if a, b := functions(ours), functions(theirs); a != b {
		t.Errorf("the migration makes\n%s\nthe file\n%s", a, b)
	}
}
