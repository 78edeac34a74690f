package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/tabletest"
)

// newDB creates a database with the provisioning schema.
func newDB(t testing.TB, path string) *sql.DB {
	t.Helper()
	p, err := provision.Create(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	return rawDB(t, path)
}

func rawDB(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func exec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func openTable(t testing.TB, source string) *table.Table {
	t.Helper()
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: source}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tab := table.New("mail", b, 0)
	t.Cleanup(func() { tab.Close() })
	return tab
}

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ownInserts are the statements that load a list into our own schema.
var ownInserts = map[table.Service]string{
	table.Domain: `INSERT INTO domains (name) VALUES (?)`, table.NetAddr: `INSERT INTO networks (cidr) VALUES (?)`,
	table.MailAddr: `INSERT INTO addresses (address) VALUES (?)`, table.String: `INSERT INTO users (name) VALUES (?)`,
	table.Source: `INSERT INTO sources (address) VALUES (?)`, table.RelayHost: `INSERT INTO relays (match, url) VALUES ('*', ?)`,
	table.Alias: `INSERT INTO aliases (address, target) VALUES (?, ?)`, table.MailAddrMap: `INSERT INTO senders (user, address) VALUES (?, ?)`,
	table.AddrName: `INSERT INTO hostnames (address, hostname) VALUES (?, ?)`, table.CA: `INSERT INTO authorities (name, pem) VALUES (?, ?)`,
	table.CertAuth: `INSERT INTO client_identities (identity, user) VALUES (?, ?)`, table.TLSPolicy: `INSERT INTO tls_policies (domain, policy) VALUES (?, ?)`,
	table.Config: `INSERT INTO configs (name, body) VALUES (?, ?)`,
}

func loadOwn(t *testing.T, db *sql.DB, d tabletest.Data) {
	t.Helper()
	for _, r := range d.Records {
		switch {
		case !d.Mapping:
			exec(t, db, ownInserts[d.Service], r.Key)
		case d.Service == table.Credentials:
			exec(t, db, `INSERT INTO users (name, password) VALUES (?, ?)`, r.Key, r.Values[1])
		case d.Service == table.UserInfo:
			exec(t, db, `INSERT INTO users (name, uid, gid, home) VALUES (?, nullif(?, ''), nullif(?, ''), nullif(?, ''))`, r.Key, r.Values[0], r.Values[1], r.Values[2])
		case d.Service == table.DKIM:
			exec(t, db, `INSERT INTO dkim_keys (domain, selector, key) VALUES (?, ?, ?)`, r.Key, r.Values[0], r.Values[1])
		case d.Service == table.Cert:
			for i := 0; i < len(r.Values); i += 2 {
				exec(t, db, `INSERT INTO certificates (name, chain, key) VALUES (?, ?, ?)`, r.Key, r.Values[i], r.Values[i+1])
			}
		case d.Service == table.RelayHost:
			for i, url := range r.Values {
				exec(t, db, `INSERT INTO relays (match, url, priority) VALUES (?, ?, ?)`, r.Key, url, i)
			}
		default:
			for _, v := range r.Values {
				exec(t, db, ownInserts[d.Service], r.Key, v)
			}
		}
	}
}

// Our own schema has no table of patterns: regex goes through a configuration.
func TestSuiteOwnSchema(t *testing.T) {
	tabletest.Run(t, func(t *testing.T, d tabletest.Data) table.Backend {
		if d.Service == table.Regex {
			return openQueries(t, d)
		}
		path := filepath.Join(t.TempDir(), "mail.db")
		loadOwn(t, newDB(t, path), d)
		return open(t, path)
	})
}

func TestSuiteQueries(t *testing.T) {
	tabletest.Run(t, openQueries)
}

func open(t *testing.T, source string) table.Backend {
	t.Helper()
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: source}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openQueries loads data into a schema that is not ours, as text per key or as
// columns, and asks it through a configuration of OpenSMTPD's form.
func openQueries(t *testing.T, d tabletest.Data) table.Backend {
	dir := t.TempDir()
	path := filepath.Join(dir, "other.sqlite3")
	db := rawDB(t, path)
	exec(t, db, `CREATE TABLE t (k TEXT COLLATE NOCASE, a, b, c)`)
	for _, r := range d.Records {
		for _, v := range rowsOf(d.Service, r) {
			exec(t, db, `INSERT INTO t VALUES (?, ?, ?, ?)`, append([]any{r.Key}, v...)...)
		}
	}
	conf := "dbpath " + path + "\n"
	what := map[table.Service]string{table.Credentials: "a, b", table.UserInfo: "a, b, c", table.Cert: "a, b", table.DKIM: "a, b"}[d.Service]
	if what == "" {
		what = "a"
	}
	if !d.Mapping {
		what = "k"
		if d.Service == table.Source || d.Service == table.RelayHost || d.Service == table.NetAddr || d.Service == table.Regex ||
			d.Service == table.Domain || d.Service == table.MailAddr {
			conf += "fetch_" + d.Service.String() + "\tSELECT k FROM t ORDER BY k\n"
		}
	}
	conf += "query_" + d.Service.String() + " SELECT " + what + " FROM t WHERE k = :key ORDER BY rowid\n"
	return open(t, writeFile(t, filepath.Join(dir, "table.conf"), conf))
}

func rowsOf(s table.Service, r tabletest.Record) [][]any {
	val := func(i int) any {
		if i < len(r.Values) {
			return r.Values[i]
		}
		return nil
	}
	switch s {
	case table.Credentials, table.UserInfo:
		return [][]any{{val(0), val(1), val(2)}}
	case table.Cert, table.DKIM:
		var rows [][]any
		for i := 0; i < len(r.Values); i += 2 {
			rows = append(rows, []any{val(i), val(i + 1), nil})
		}
		return rows
	}
	if len(r.Values) == 0 {
		return [][]any{{nil, nil, nil}}
	}
	var rows [][]any
	for i := range r.Values {
		rows = append(rows, []any{val(i), nil, nil})
	}
	return rows
}

func TestRowIsSeenByNextQuestion(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "mail.db")
	db, tab := newDB(t, path), openTable(t, path)
	if _, err := tab.Aliases(ctx, "root"); !errors.Is(err, table.ErrNotFound) {
		t.Fatal(err)
	}
	for _, target := range []string{"one", "two", "three"} {
		exec(t, db, `DELETE FROM aliases`)
		exec(t, db, `INSERT INTO aliases (address, target) VALUES ('root', ?)`, target)
		if nodes, err := tab.Aliases(ctx, "root"); err != nil || len(nodes) != 1 || nodes[0].Text != target {
			t.Errorf("aliases = %v, %v; want %s", nodes, err, target)
		}
	}
}

func TestUsersAndLabels(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "mail.db")
	db, tab := newDB(t, path), openTable(t, path)
	exec(t, db, `INSERT INTO users (name, password, enabled) VALUES ('on', '$6$a', 1), ('off', '$6$b', 0), ('nologin', NULL, 1), ('empty', '', 1)`)
	exec(t, db, `INSERT INTO relay_credentials (label, username, password) VALUES ('smart', 'me@isp.example', 'secret'), ('off', 'x', 'y'), ('on', 'x', 'y')`)
	for key, want := range map[string]string{"on": "on $6$a", "off": "", "nologin": "", "empty": "", "smart": "me@isp.example secret", "SMART": "me@isp.example secret"} {
		got, err := tabletest.Print(ctx, tab, table.Credentials, key)
		if want == "" && !errors.Is(err, table.ErrNotFound) || want != "" && (err != nil || got != want) {
			t.Errorf("credentials %q = %q, %v; want %q", key, got, err, want)
		}
	}
	for key, found := range map[string]bool{"on": true, "off": false, "nologin": true} {
		if _, err := tab.UserInfo(ctx, key); (err == nil) != found {
			t.Errorf("userinfo %q: %v", key, err)
		}
		if ok, err := tab.Check(ctx, table.String, key); ok != found || err != nil {
			t.Errorf("string %q = %v, %v", key, ok, err)
		}
	}
}

func TestRelayOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	db, tab := newDB(t, path), openTable(t, path)
	exec(t, db, `INSERT INTO relays (match, url, priority, weight) VALUES
('x.example', 'smtp://c', 20, 1), ('x.example', 'smtp://b', 10, 1), ('x.example', 'smtp://a', 10, 5), ('*', 'smtp://any', 0, 1)`)
	if got, err := tab.RelayHosts(context.Background(), "x.example"); err != nil || fmt.Sprint(got) != "[{smtp://a 10 5} {smtp://b 10 1} {smtp://c 20 1}]" {
		t.Errorf("relays = %v, %v", got, err)
	}
	if got, err := tab.FetchRelayHosts(context.Background()); err != nil || fmt.Sprint(got) != "[{smtp://any 0 1}]" {
		t.Errorf("fetched = %v, %v", got, err)
	}
}

func TestOtherServicesOfTheSchema(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "mail.db")
	db, tab := newDB(t, path), openTable(t, path)
	exec(t, db, `INSERT INTO client_identities (identity, user) VALUES ('email:a@b.example', 'alice')`)
	exec(t, db, `INSERT INTO tls_policies (domain, policy) VALUES ('x.example', 'secure')`)
	exec(t, db, `INSERT INTO dkim_keys (domain, selector, key) VALUES ('x.example', 's1', 'pem')`)
	exec(t, db, `INSERT INTO configs (name, body, version) VALUES ('main', 'old', 1), ('main', 'new', 2)`)
	exec(t, db, `INSERT INTO hostnames (address, hostname) VALUES ('2001:db8::9', 'bare.example')`)
	for _, tt := range []struct {
		s         table.Service
		key, want string
	}{
		{table.CertAuth, "EMAIL:a@b.example", "alice"}, {table.TLSPolicy, "x.example", "secure"},
		{table.DKIM, "x.example", "s1 pem"}, {table.Config, "main", "new"}, {table.AddrName, "[2001:db8::9]", "bare.example"},
	} {
		row, err := tab.Lookup(ctx, tt.s, tt.key)
		if err != nil || strings.Join(row, " ") != tt.want {
			t.Errorf("%s %q = %q, %v; want %q", tt.s, tt.key, row, err, tt.want)
		}
	}
}

// readfile() of the sqlite3 command line gives blobs.
func TestBlobsAreText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	db, tab := newDB(t, path), openTable(t, path)
	pair := tabletest.NewPair(t, "mx.example.org", "ecdsa", nil)
	exec(t, db, `INSERT INTO certificates (name, chain, key) VALUES ('mx.example.org', ?, ?)`, []byte(pair.Chain), []byte(pair.Key))
	if pairs, err := tab.KeyPairs(context.Background(), "mx.example.org"); err != nil || len(pairs) != 1 {
		t.Errorf("key pairs = %v, %v", pairs, err)
	}
}

func TestBrokenRowsAreErrors(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "other.db")
	db := rawDB(t, path)
	exec(t, db, `CREATE TABLE t (k, v)`)
	exec(t, db, `INSERT INTO t VALUES ('blob', x'ff00'), ('nul', 'a' || char(0) || 'b'), ('real', 1.5), ('ok', 'fine'), ('null', NULL)`)
	tab := openTable(t, writeFile(t, filepath.Join(dir, "t.conf"),
		"dbpath "+path+"\nquery_alias SELECT v FROM t WHERE k = ?\nquery_credentials SELECT k, v, v FROM t WHERE k = ?\nquery_userinfo SELECT nosuch FROM t WHERE k = ?\n"))
	if nodes, err := tab.Aliases(ctx, "ok"); err != nil || len(nodes) != 1 {
		t.Errorf("ok: %v, %v", nodes, err)
	}
	for _, key := range []string{"blob", "nul", "real", "null"} {
		if _, err := tab.Aliases(ctx, key); err == nil || errors.Is(err, table.ErrNotFound) {
			t.Errorf("%s: %v; want a temporary error", key, err)
		}
	}
	_, err := tab.Credentials(ctx, "ok")
	if err == nil || !strings.Contains(err.Error(), `table mail: credentials "ok": query_credentials: selects 3 columns`) {
		t.Errorf("columns: %v", err)
	}
	if _, err = tab.UserInfo(ctx, "ok"); err == nil || !strings.Contains(err.Error(), "query_userinfo") {
		t.Errorf("bad query: %v", err)
	}
	if _, err = tab.MailAddrMap(ctx, "ok"); !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), "query_mailaddrmap") {
		t.Errorf("missing query: %v", err)
	}
	if err = tab.Ping(ctx); err == nil {
		t.Error("Ping finds nothing wrong")
	}
}

func TestPing(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "mail.db")
	tab := openTable(t, path)
	if err := tab.Ping(ctx); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "tabard migrate") {
		t.Errorf("Ping without a file: %v", err)
	}
	db := rawDB(t, path)
	exec(t, db, `CREATE TABLE x (y)`)
	if err := tab.Ping(ctx); err == nil || !strings.Contains(err.Error(), "tabard migrate") {
		t.Errorf("Ping without the schema: %v", err)
	}
	newDB(t, path)
	if err := tab.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
	exec(t, db, `INSERT INTO tabard_provision_version (version_id, is_applied) VALUES (9999, 1)`)
	if err := tab.Ping(ctx); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("Ping of a newer schema: %v", err)
	}
}
