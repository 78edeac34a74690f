package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tabard/backends/conf"
	"tabard/backends/sqltable"
	"tabard/internal/config"
	"tabard/internal/pgtest"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/tabletest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// connect returns a connection to a database, as an administrator has one.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, query string, args ...any) {
	t.Helper()
	var err error
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(context.Background(), query).ReadAll()
	} else {
		_, err = conn.Exec(context.Background(), query, args...)
	}
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// newDB creates a database with the provisioning schema.
func newDB(t testing.TB) (url string, conn *pgx.Conn) {
	t.Helper()
	url = pgtest.Database(t)
	migrate(t, url)
	return url, connect(t, url)
}

func migrate(t testing.TB, url string) {
	t.Helper()
	db, err := migrations.OpenPostgres(url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, _, err := migrations.Up(context.Background(), db, migrations.Postgres, migrations.Provision); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, source string) table.Backend {
	t.Helper()
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: source}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openTable(t testing.TB, source string) *table.Table {
	t.Helper()
	tab := table.New("mail", open(t, source), 0)
	t.Cleanup(func() { tab.Close() })
	return tab
}

// writeConf writes a configuration file for the database of a URL.
func writeConf(t testing.TB, url, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "table.conf")
	if err := os.WriteFile(path, []byte("conninfo "+url+"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ownInserts are the statements that load a list into our own schema.
var ownInserts = map[table.Service]string{
	table.Domain: `INSERT INTO domains (name) VALUES ($1)`, table.NetAddr: `INSERT INTO networks (cidr) VALUES ($1)`,
	table.MailAddr: `INSERT INTO addresses (address) VALUES ($1)`, table.String: `INSERT INTO users (name) VALUES ($1)`,
	table.Source: `INSERT INTO sources (address) VALUES ($1)`, table.RelayHost: `INSERT INTO relays (match, url) VALUES ('*', $1)`,
	table.Alias: `INSERT INTO aliases (address, target) VALUES ($1, $2)`, table.MailAddrMap: `INSERT INTO senders ("user", address) VALUES ($1, $2)`,
	table.AddrName: `INSERT INTO hostnames (address, hostname) VALUES ($1, $2)`, table.CA: `INSERT INTO authorities (name, pem) VALUES ($1, $2)`,
	table.CertAuth: `INSERT INTO client_identities (identity, "user") VALUES ($1, $2)`, table.TLSPolicy: `INSERT INTO tls_policies (domain, policy) VALUES ($1, $2)`,
	table.Config: `INSERT INTO configs (name, body) VALUES ($1, $2)`,
}

func loadOwn(t *testing.T, conn *pgx.Conn, d tabletest.Data) {
	t.Helper()
	for _, r := range d.Records {
		switch {
		case !d.Mapping:
			exec(t, conn, ownInserts[d.Service], r.Key)
		case d.Service == table.Credentials:
			exec(t, conn, `INSERT INTO users (name, password) VALUES ($1, $2)`, r.Key, r.Values[1])
		case d.Service == table.UserInfo:
			exec(t, conn, `INSERT INTO users (name, uid, gid, home) VALUES ($1, nullif($2, '')::bigint, nullif($3, '')::bigint, nullif($4, ''))`, r.Key, r.Values[0], r.Values[1], r.Values[2])
		case d.Service == table.DKIM:
			exec(t, conn, `INSERT INTO dkim_keys (domain, selector, key) VALUES ($1, $2, $3)`, r.Key, r.Values[0], r.Values[1])
		case d.Service == table.Cert:
			for i := 0; i < len(r.Values); i += 2 {
				exec(t, conn, `INSERT INTO certificates (name, chain, key) VALUES ($1, $2, $3)`, r.Key, r.Values[i], r.Values[i+1])
			}
		case d.Service == table.RelayHost:
			for i, url := range r.Values {
				exec(t, conn, `INSERT INTO relays (match, url, priority) VALUES ($1, $2, $3)`, r.Key, url, i)
			}
		default:
			for _, v := range r.Values {
				exec(t, conn, ownInserts[d.Service], r.Key, v)
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
		url, conn := newDB(t)
		loadOwn(t, conn, d)
		return open(t, url)
	})
}

func TestSuiteQueries(t *testing.T) {
	tabletest.Run(t, openQueries)
}

// openQueries loads data into a schema that is not ours, as text per key or as
// columns, and asks it through a configuration of OpenSMTPD's form.
func openQueries(t *testing.T, d tabletest.Data) table.Backend {
	url := pgtest.Database(t)
	conn := connect(t, url)
	exec(t, conn, `CREATE TABLE t (id serial, k text, a text, b text, c text)`)
	for _, r := range d.Records {
		for _, v := range rowsOf(d.Service, r) {
			exec(t, conn, `INSERT INTO t (k, a, b, c) VALUES ($1, $2, $3, $4)`, append([]any{r.Key}, v...)...)
		}
	}
	conf := ""
	what := map[table.Service]string{table.Credentials: "a, b", table.UserInfo: "a, b, c", table.Cert: "a, b", table.DKIM: "a, b"}[d.Service]
	if what == "" {
		what = "a"
	}
	if !d.Mapping {
		what = "k"
		if d.Service == table.Source || d.Service == table.RelayHost || d.Service == table.NetAddr || d.Service == table.Regex ||
			d.Service == table.Domain || d.Service == table.MailAddr {
			conf += "fetch_" + d.Service.String() + "\tSELECT k FROM t ORDER BY k COLLATE \"C\"\n"
		}
	}
	conf += "query_" + d.Service.String() + " SELECT " + what + " FROM t WHERE lower(k) = $1 ORDER BY id;\n"
	return open(t, writeConf(t, url, conf))
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

func TestUsersAndLabels(t *testing.T) {
	ctx := t.Context()
	url, conn := newDB(t)
	tab := openTable(t, url)
	exec(t, conn, `INSERT INTO users (name, password, enabled) VALUES ('On', '$6$a', true), ('off', '$6$b', false), ('nologin', NULL, true), ('empty', '', true)`)
	exec(t, conn, `INSERT INTO relay_credentials (label, username, password) VALUES ('Smart', 'me@isp.example', 'secret'), ('off', 'x', 'y'), ('on', 'x', 'y')`)
	for key, want := range map[string]string{"on": "On $6$a", "off": "", "nologin": "", "empty": "", "smart": "me@isp.example secret", "SMART": "me@isp.example secret"} {
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

func TestOtherServicesOfTheSchema(t *testing.T) {
	ctx := t.Context()
	url, conn := newDB(t)
	tab := openTable(t, url)
	exec(t, conn, `INSERT INTO client_identities (identity, "user") VALUES ('email:A@b.example', 'alice');
INSERT INTO tls_policies (domain, policy) VALUES ('X.example', 'secure');
INSERT INTO dkim_keys (domain, selector, key) VALUES ('x.example', 's1', 'pem');
INSERT INTO configs (name, body, version) VALUES ('main', 'old', 1), ('Main', 'new', 2);
INSERT INTO hostnames (address, hostname) VALUES ('2001:db8::9', 'bare.example');
INSERT INTO relays (match, url, priority, weight) VALUES
('x.example', 'smtp://c', 20, 1), ('x.example', 'smtp://b', 10, 1), ('x.example', 'smtp://a', 10, 5), ('*', 'smtp://any', 0, 1)`)
	for _, tt := range []struct {
		s         table.Service
		key, want string
	}{
		{table.CertAuth, "EMAIL:a@b.example", "alice"}, {table.TLSPolicy, "x.example", "secure"},
		{table.DKIM, "x.example", "s1 pem"}, {table.Config, "main", "new"}, {table.AddrName, "[2001:db8::9]", "bare.example"},
		{table.RelayHost, "x.example", "smtp://a 10 5 smtp://b 10 1 smtp://c 20 1"},
	} {
		row, err := tab.Lookup(ctx, tt.s, tt.key)
		if err != nil || strings.Join(row, " ") != tt.want {
			t.Errorf("%s %q = %q, %v; want %q", tt.s, tt.key, row, err, tt.want)
		}
	}
	if got, err := tab.FetchRelayHosts(ctx); err != nil || fmt.Sprint(got) != "[{smtp://any 0 1}]" {
		t.Errorf("fetched = %v, %v", got, err)
	}
}

func TestPing(t *testing.T) {
	ctx := t.Context()
	url := pgtest.Database(t)
	tab := openTable(t, url)
	if err := tab.Ping(ctx); err == nil || !strings.Contains(err.Error(), "tabard migrate") {
		t.Errorf("Ping without the schema: %v", err)
	}
	migrate(t, url)
	if err := tab.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
	exec(t, connect(t, url), `INSERT INTO tabard_provision_version (version_id, is_applied) VALUES (9999, true)`)
	if err := tab.Ping(ctx); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("Ping of a newer schema: %v", err)
	}
	for query, want := range map[string]string{
		"query_alias SELECT goto FROM nosuch WHERE address = $1":                                                    `query_alias: ERROR: relation "nosuch"`,
		"query_alias SELECT nosuch FROM domains WHERE name = $1":                                                    `query_alias: ERROR: column "nosuch"`,
		"query_credentials SELECT name, name, name FROM domains WHERE name = $1":                                    "query_credentials: selects 3 columns, credentials needs 2",
		"query_userinfo SELECT 1, 2 FROM domains WHERE name = $1":                                                   "query_userinfo: selects 2 columns, userinfo needs 3",
		"fetch_source SELECT 1, 2":                                                                                  "fetch_source: selects 2 columns, source needs 1",
		"query_domain SELECT FROM domains WHERE name = $1":                                                          "query_domain: selects 0 columns",
		"query_domain UPDATE domains SET name = $1":                                                                 "query_domain: selects 0 columns",
		"query_domain SELECT 1; SELECT $1":                                                                          "query_domain: ERROR: cannot insert multiple commands",
		"query_auth SELECT 1, 2 FROM users WHERE name = $1 AND password = $2":                                       "query_auth: selects 2 columns",
		"query_domain SELECT 1/0 FROM domains WHERE name = $1\nquery_alias SELECT pg_sleep(9)::text WHERE 'a' = $1": "",
	} {
		err := openTable(t, writeConf(t, url, query+"\n")).Ping(ctx)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Ping with %s: %v", query, err)
		}
	}
}

// parseConf reads text as readSource reads a file.
func parseConf(text string) (source, error) {
	src := source{queries: sqltable.NewQueries(dialect())}
	err := conf.Parse("", text, src.set, src.finish)
	return src, err
}

// The keys of OpenSMTPD's table-postgres(5), as its manual shows them.
func TestConf(t *testing.T) {
	src, err := parseConf(`# comment
conninfo host='localhost' user='maildba' password='a b' dbname='opensmtpdb'

query_alias	SELECT destination FROM virtuals WHERE email=$1;
query_credentials:	SELECT email, password FROM credentials WHERE email=$1;
query_domain SELECT domain FROM domains WHERE domain=$1;
fetch_source SELECT address FROM sources
fetch_source_expire 60
fetch_source_refresh 1000
query_cert SELECT chain, key FROM c WHERE name = $1
query_auth SELECT crypt($2, pw) = pw FROM u WHERE name = $1
notify mail_changed
pool 8
timeout 1500ms
`)
	if err != nil {
		t.Fatal(err)
	}
	if src.size != 8 || src.timeout.Milliseconds() != 1500 || src.channel != "mail_changed" || src.queries.Own {
		t.Errorf("%+v", src)
	}
	if q := src.queries.Of(table.Credentials); q == nil || q.SQL != "SELECT email, password FROM credentials WHERE email=$1" {
		t.Errorf("%+v", q)
	}
	if src, err = parseConf("conninfo dbname=d\n"); err != nil || !src.queries.Own || src.channel != ownChannel {
		t.Errorf("without queries: %+v, %v", src, err)
	}
	for text, want := range map[string]string{
		"":                            "conninfo is missing",
		"conninfo d\nconninfo e":      `2: "conninfo" is already on line 1`,
		"conninfo":                    `1: "conninfo" has no value`,
		"# c\nquery_nosuch SELECT $1": `2: unknown key "query_nosuch"`,
		"query_alias SELECT 1":        "1: query_alias: needs a parameter",
		"query_alias SELECT $2":       "1: query_alias: parameter $2",
		"query_alias SELECT $0":       "1: query_alias: parameter $0",
		"query_auth SELECT $1":        "1: query_auth: needs $1 for the user and $2",
		"query_auth SELECT $1,$2,$3":  "1: query_auth: parameter $3",
		"fetch_auth SELECT 1":         "1: unknown key",
		"fetch_source SELECT $1":      "1: fetch_source: must not have a parameter",
		"pool 0":                      "1: pool:",
		"timeout soon":                "1: timeout:",
		"timeout 5":                   "1: timeout:",
		"notify a b":                  "1: notify:",
		"fetch_source_expire x":       "1: fetch_source_expire:",
		"dbpath /x":                   `1: unknown key "dbpath"; expected conninfo`,
	} {
		if _, err := parseConf(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

func FuzzConf(f *testing.F) {
	f.Add("conninfo a=b\nquery_alias SELECT $1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if src, err := parseConf(text); err == nil && (src.conninfo == "" || len(src.queries.All()) == 0) {
			t.Errorf("%q is accepted", text)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for source, want := range map[string]string{
		"":                                      "no URL or path",
		filepath.Join(dir, "nosuch.conf"):       "nosuch.conf",
		dir:                                     dir,
		"postgres://u:geheim@h/d?sslmode=wrong": "TLS",
		writeConf(t, "host=h password=geheim port=0", ""): "port",
	} {
		_, err := Open(t.Context(), config.Table{Name: "mail", Source: source}, table.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(fmt.Sprint(err), "geheim") {
			t.Errorf("%s: %v", source, err)
		}
	}
}
