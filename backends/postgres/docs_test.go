package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tabard/internal/pgsource"
	"tabard/internal/pgtest"
	"tabard/table"
	"tabard/table/tabletest"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What the manual tells an administrator to paste works.
func TestManualSQL(t *testing.T) {
	url, conn := newDB(t)
	exec(t, conn, "CREATE TABLE mailbox (username text); CREATE TABLE alias (address text)")
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(readDoc(t, "postgres.md"), -1)
	if len(blocks) < 4 {
		t.Fatalf("%d blocks of SQL", len(blocks))
	}
	exec(t, conn, "DROP ROLE IF EXISTS tabard_manual")
	for _, b := range blocks {
		exec(t, conn, strings.NewReplacer("ROLE tabard", "ROLE tabard_manual", "TO tabard", "TO tabard_manual").Replace(b[1]))
	}
	tab := openTable(t, url+"&user=tabard_manual")
	if got, err := tabletest.Print(t.Context(), tab, table.MailAddrMap, "Alice@example.org"); err != nil || got != "info@example.org" {
		t.Errorf("senders = %q, %v", got, err)
	}
	if ok, err := tab.Check(t.Context(), table.String, "alice@example.org"); ok || err != nil {
		t.Errorf("a user that was switched off: %v, %v", ok, err)
	}
	if err := tab.Ping(t.Context()); err != nil {
		t.Errorf("with the rights of the manual: %v", err)
	}
	exec(t, conn, "DROP OWNED BY tabard_manual; DROP ROLE tabard_manual")
}

// The files for PostgreSQL that the manual's page on queries shows are asked over
// their schema.
func TestManualQueries(t *testing.T) {
	url := pgtest.Database(t)
	exec(t, connect(t, url), `CREATE EXTENSION pgcrypto;
CREATE TABLE users (local text, domain text, password text, active boolean); CREATE TABLE aliases (local text, domain text, target text, active boolean);
INSERT INTO users VALUES ('alice', 'example.org', crypt('geheim', gen_salt('bf', 4)), true);
INSERT INTO aliases VALUES ('info', 'example.org', 'alice@example.org', true), ('old', 'example.org', 'alice@example.org', false)`)
	conf := ""
	for _, b := range regexp.MustCompile("(?s)```conf\nconninfo [^\n]*\n(.*?)```").FindAllStringSubmatch(readDoc(t, "sql.md"), -1) {
		conf += b[1]
	}
	tab := openTable(t, writeConf(t, url, conf))
	if err := tab.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"info@example.org": "alice@example.org", "old@example.org": "", "@example.org": "", "info": ""} {
		if got, err := tabletest.Print(t.Context(), tab, table.Alias, key); got != want || want == "" && !errors.Is(err, table.ErrNotFound) {
			t.Errorf("%q = %q, %v; want %q", key, got, err, want)
		}
	}
	for password, want := range map[string]bool{"geheim": true, "wrong": false} {
		if ok, err := tab.Authenticate(t.Context(), "alice@example.org", password); ok != want || err != nil {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
	}
}

// The example works with its schema, and tells of changes.
func TestExample(t *testing.T) {
	ctx := t.Context()
	url := pgtest.Database(t)
	conn := connect(t, url)
	exec(t, conn, readDoc(t, "examples/postgres-notify.sql"))
	conf := readDoc(t, "examples/postgres.table")
	_, schema, _ := strings.Cut(conf, "\n# CREATE TABLE")
	exec(t, conn, "CREATE TABLE"+strings.ReplaceAll(schema, "\n#", "\n"))
	exec(t, conn, `INSERT INTO domains VALUES ('example.org');
INSERT INTO accounts (email, password, may_send_as) VALUES ('a@example.org', '$6$x', '{info@example.org,"@example.net"}');
INSERT INTO virtuals (email, destination) VALUES ('info@example.org', 'a@example.org'), ('info@example.org', 'b@example.com');
INSERT INTO sources VALUES ('192.0.2.1'), ('2001:db8::1')`)
	src, err := parseConf(conf)
	if err != nil || src.channel != "tabard" {
		t.Fatalf("%+v, %v", src, err)
	}
	if c, err := pgsource.Parse(src.conninfo); err != nil || len(c.Fallbacks) != 1 {
		t.Errorf("conninfo: %v", err)
	}
	path := filepath.Join(t.TempDir(), "postgres.conf")
	if err := os.WriteFile(path, []byte(strings.Replace(conf, "conninfo "+src.conninfo, "conninfo "+url, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, path)
	tab := table.New("mail", b, 0)
	t.Cleanup(func() { tab.Close() })
	if err := tab.Ping(ctx); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		s         table.Service
		key, want string
	}{
		{table.Alias, "Info@example.org", "a@example.org b@example.com"},
		{table.Credentials, "a@example.org", "a@example.org $6$x"},
		{table.UserInfo, "a@example.org", `5000 5000 "/var/vmail/a@example.org"`},
		{table.MailAddrMap, "a@example.org", "info@example.org @example.net a@example.org"},
	} {
		if got, err := tabletest.Print(ctx, tab, tt.s, tt.key); err != nil || got != tt.want {
			t.Errorf("%s %q = %q, %v; want %q", tt.s, tt.key, got, err, tt.want)
		}
	}
	if ok, err := tab.Check(ctx, table.Domain, "example.org"); !ok || err != nil {
		t.Errorf("domain: %v, %v", ok, err)
	}
	if ips, err := tab.FetchSources(ctx); err != nil || len(ips) != 2 {
		t.Errorf("sources = %v, %v", ips, err)
	}
	w := watch(t, b)
	exec(t, conn, `DELETE FROM virtuals WHERE destination = 'b@example.com'`)
	if c := w.next(t); c != (table.Change{Service: table.Alias, Key: "info@example.org"}) {
		t.Errorf("told %v", c)
	}
}
