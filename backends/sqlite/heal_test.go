package sqlite

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// fails expects a temporary error: an error that is not "not found".
func fails(t *testing.T, tab *table.Table, why string) {
	t.Helper()
	for _, key := range []string{"root", "nobody"} {
		if _, err := tab.Aliases(context.Background(), key); err == nil || errors.Is(err, table.ErrNotFound) {
			t.Errorf("%s: lookup %q: %v; want a temporary error", why, key, err)
		}
	}
}

func answers(t *testing.T, tab *table.Table, want string) {
	t.Helper()
	nodes, err := tab.Aliases(context.Background(), "root")
	if err != nil || len(nodes) != 1 || nodes[0].Text != want {
		t.Errorf("aliases of root = %v, %v; want %s", nodes, err, want)
	}
}

// withRoot creates a closed database in which root is target.
func withRoot(t *testing.T, path, target string) {
	t.Helper()
	db := newDB(t, path)
	exec(t, db, `INSERT INTO aliases (address, target) VALUES ('root', ?)`, target)
	db.Close()
}

func TestHeals(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.db")
	tab := openTable(t, path)
	fails(t, tab, "missing")
	withRoot(t, path, "one")
	answers(t, tab, "one")

	withRoot(t, path+".new", "two")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	answers(t, tab, "two")

	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	fails(t, tab, "gone")
	writeFile(t, path, "this is no database at all, but long enough to be read as the header of one: "+strings.Repeat("x", 4096))
	fails(t, tab, "garbage")
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	answers(t, tab, "two")
}

// A file overwritten in place: by garbage, cut short, restored, and by another
// database, as a backup copied over it.
func TestHealsInPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.db")
	withRoot(t, path, "one")
	withRoot(t, path+".other", "two")
	good, other := readFile(t, path), readFile(t, path+".other")
	tab := openTable(t, path)
	answers(t, tab, "one")
	writeFile(t, path, strings.Repeat("garbage ", len(good)/8))
	fails(t, tab, "garbage")
	writeFile(t, path, good)
	answers(t, tab, "one")
	writeFile(t, path, good[:len(good)/2])
	if _, err := tab.Aliases(context.Background(), "root"); err == nil || errors.Is(err, table.ErrNotFound) {
		t.Errorf("cut short: %v", err)
	}
	writeFile(t, path, other)
	answers(t, tab, "two")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// In rollback journal mode a writer's exclusive lock keeps readers out.
func TestLockedIsTemporary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	withRoot(t, path, "one")
	db := rawDB(t, path)
	db.SetMaxOpenConns(1)
	exec(t, db, `PRAGMA journal_mode = DELETE`)
	tab := openTable(t, path)
	answers(t, tab, "one")
	exec(t, db, `BEGIN EXCLUSIVE`)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := tab.Aliases(ctx, "root"); err == nil || errors.Is(err, table.ErrNotFound) {
		t.Errorf("locked: %v; want a temporary error", err)
	}
	exec(t, db, `ROLLBACK`)
	answers(t, tab, "one")
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.db")
	withRoot(t, path, "one")
	tab := openTable(t, writeFile(t, filepath.Join(dir, "t.conf"),
		"dbpath "+path+"\nquery_alias DELETE FROM aliases WHERE address = ? RETURNING target\n"))
	fails(t, tab, "a query that writes")
	answers(t, openTable(t, path), "one")
}

// A name that a URI would read otherwise.
func TestOddPath(t *testing.T) {
	for _, name := range []string{"with space.db", "per%20cent.db", "what?mode=memory.db", "hash#tag.db", "ü.db"} {
		path := filepath.Join(t.TempDir(), name)
		p := filepath.Join(t.TempDir(), "plain.db")
		withRoot(t, p, "one")
		if err := os.Rename(p, path); err != nil {
			t.Fatal(err)
		}
		answers(t, openTable(t, path), "one")
	}
}

func TestReplacedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.db")
	withRoot(t, path, "same")
	tab := openTable(t, path)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					answers(t, tab, "same")
				}
			}
		})
	}
	for range 8 {
		withRoot(t, path+".new", "same")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestOpenTellsDatabaseFromConfiguration(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "noext")
	withRoot(t, filepath.Join(dir, "mail.db"), "one")
	if err := os.Rename(filepath.Join(dir, "mail.db"), db); err != nil {
		t.Fatal(err)
	}
	answers(t, openTable(t, db), "one")
	answers(t, openTable(t, writeFile(t, filepath.Join(dir, "table"), "dbpath "+db+"\n")), "one")
	if _, err := Open(context.Background(), config.Table{Source: filepath.Join(dir, "none.conf")}, table.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing configuration: %v", err)
	}
}
