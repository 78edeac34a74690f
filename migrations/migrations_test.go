package migrations

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

func open(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestUp(t *testing.T) {
	ctx := context.Background()
	db := open(t, filepath.Join(t.TempDir(), "t.db"))
	have, want, err := Status(ctx, db, SQLite, Provision)
	if err != nil || have != 0 || want < 1 {
		t.Fatalf("Status of an empty database = %d, %d, %v", have, want, err)
	}
	from, to, err := Up(ctx, db, SQLite, Provision)
	if err != nil || from != 0 || to != want {
		t.Fatalf("Up = %d, %d, %v; want 0, %d", from, to, err, want)
	}
	from, to, err = Up(ctx, db, SQLite, Provision)
	if err != nil || from != want || to != want {
		t.Fatalf("second Up = %d, %d, %v", from, to, err)
	}
	if have, _, err = Status(ctx, db, SQLite, Provision); err != nil || have != want {
		t.Fatalf("Status = %d, %v", have, err)
	}
}

// The names are a public interface: people write SQL against them.
func TestProvisionNames(t *testing.T) {
	ctx := context.Background()
	db := open(t, filepath.Join(t.TempDir(), "t.db"))
	if _, _, err := Up(ctx, db, SQLite, Provision); err != nil {
		t.Fatal(err)
	}
	for table, columns := range map[string][]string{
		"domains": {"name"}, "users": {"name", "password", "uid", "gid", "home", "enabled"},
		"aliases": {"address", "target"}, "senders": {"user", "address"},
		"relays":            {"match", "url", "priority", "weight"},
		"relay_credentials": {"label", "username", "password"},
		"certificates":      {"name", "chain", "key"}, "authorities": {"name", "pem"},
		"client_identities": {"identity", "user"}, "tls_policies": {"domain", "policy"},
		"sources": {"address"}, "hostnames": {"address", "hostname"}, "networks": {"cidr"},
		"addresses": {"address"}, "dkim_keys": {"domain", "selector", "key"},
		"configs": {"name", "body", "version", "created", "author"},
	} {
		have := columnsOf(t, db, table)
		for _, c := range columns {
			if !slices.Contains(have, c) {
				t.Errorf("table %s has no column %s (has %v)", table, c, have)
			}
		}
	}
}

func columnsOf(t *testing.T, db *sql.DB, table string) []string {
	t.Helper()
	rows, err := db.Query("SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	return names
}

func TestConstraints(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "t.db"))
	if _, _, err := Up(context.Background(), db, SQLite, Provision); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		sql string
		ok  bool
	}{
		{"INSERT INTO users (name) VALUES ('u@x.example')", true},
		{"INSERT INTO users (name) VALUES ('U@X.example')", false},
		{"INSERT INTO users (name, uid) VALUES ('a', 'root')", false},
		{"INSERT INTO users (name, uid) VALUES ('b', -1)", false},
		{"INSERT INTO users (name, home) VALUES ('c', 'relative')", false},
		{"INSERT INTO users (name, enabled) VALUES ('d', 7)", false},
		{"INSERT INTO domains (name) VALUES ('')", false},
		{"INSERT INTO domains (name) VALUES (x'00')", false},
		{"INSERT INTO aliases (address, target) VALUES ('a', 'b'), ('a', 'c')", true},
		{"INSERT INTO aliases (address, target) VALUES ('A', 'b')", false},
		{"INSERT INTO certificates (name, chain, key) VALUES ('mx', 'c1', 'k1'), ('mx', 'c2', 'k2')", true},
		{"INSERT INTO certificates (name, chain, key) VALUES ('mx', x'2d2d', x'2d2d')", true},
		{"INSERT INTO relays (match, url) VALUES ('*', 'smtp://a')", true},
	} {
		if _, err := db.Exec(tt.sql); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.sql, err)
		}
	}
}

func TestNewerIsRefused(t *testing.T) {
	ctx := context.Background()
	db := open(t, filepath.Join(t.TempDir(), "t.db"))
	if _, _, err := Up(ctx, db, SQLite, Provision); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO tabard_provision_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Up(ctx, db, SQLite, Provision); !errors.Is(err, ErrNewer) {
		t.Fatalf("Up on a newer database: %v", err)
	}
}

func TestUnknown(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "t.db"))
	if _, _, err := Up(context.Background(), db, "oracle", Provision); err == nil {
		t.Error("unknown dialect accepted")
	}
	if _, _, err := Up(context.Background(), db, SQLite, "nosuch"); err == nil {
		t.Error("unknown schema accepted")
	}
}

// Each caller has its own pool, as a process of its own would.
func TestUpAtOnce(t *testing.T) {
	ctx := context.Background()
	for range 3 {
		path := filepath.Join(t.TempDir(), "t.db")
		var wg sync.WaitGroup
		for range 8 {
			db := open(t, path)
			wg.Go(func() {
				if _, to, err := Up(ctx, db, SQLite, Provision); err != nil || to < 1 {
					t.Errorf("Up = %d, %v", to, err)
				}
			})
		}
		wg.Wait()
		var n int
		if err := open(t, path).QueryRow("SELECT count(*) FROM tabard_provision_version WHERE version_id = 1").Scan(&n); err != nil || n != 1 {
			t.Errorf("version 1 is recorded %d times, %v", n, err)
		}
	}
}

// Whoever loses a race fails at this record, and with it its whole transaction.
func TestVersionIsRecordedOnce(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "t.db"))
	if _, _, err := Up(context.Background(), db, SQLite, Provision); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO tabard_provision_version (version_id, is_applied) VALUES (1, 1)"); err == nil {
		t.Error("a version was recorded twice")
	}
}

func TestUpEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	db := open(t, filepath.Join(t.TempDir(), "t.db"))
	cancel()
	if _, _, err := Up(ctx, db, SQLite, Provision); !errors.Is(err, context.Canceled) {
		t.Errorf("Up with a cancelled context: %v", err)
	}
}
