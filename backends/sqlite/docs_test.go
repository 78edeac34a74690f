package sqlite

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tabard/table"
	"tabard/table/tabletest"
)

// docBlocks returns the blocks of a language in a page of the manual.
func docBlocks(t *testing.T, page, lang string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```"+lang+"\n(.*?)```").FindAllSubmatch(b, -1) {
		blocks = append(blocks, string(m[1]))
	}
	if len(blocks) == 0 {
		t.Fatalf("no block of %s in the manual", lang)
	}
	return blocks
}

// What the manual tells an administrator to paste works, and is served.
func TestManualSQL(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "mail.db")
	db, tab := newDB(t, path), openTable(t, path)
	for _, block := range docBlocks(t, "tables.md", "sql") {
		exec(t, db, block)
	}
	for _, tt := range []struct {
		s         table.Service
		key, want string
	}{
		{table.Alias, "info@example.org", "alice@example.org carol@elsewhere.example"},
		{table.Alias, "left@example.org", "error:550 5.1.1 No longer here"},
		{table.UserInfo, "alice@example.org", `-1 -1 ""`},
		{table.MailAddrMap, "alice@example.org", "alice@example.org info@example.org"},
		{table.RelayHost, "partner.example", "tls://mx1.partner.example tls://mx2.partner.example"},
		{table.RelayHost, "*", "smtps://isp@mail.isp.example"},
		{table.Credentials, "isp", "customer-4711 correct horse"},
		{table.AddrName, "192.0.2.10", "out.example.org"},
	} {
		if got, err := tabletest.Print(ctx, tab, tt.s, tt.key); err != nil || got != tt.want {
			t.Errorf("%s %q = %q, %v; want %q", tt.s, tt.key, got, err, tt.want)
		}
	}
	for s, key := range map[table.Service]string{
		table.Domain: "a.example.net", table.NetAddr: "[2001:db8::77]", table.MailAddr: "x@bulk.example", table.String: "alice@example.org",
	} {
		if ok, err := tab.Check(ctx, s, key); !ok || err != nil {
			t.Errorf("%s %q = %v, %v", s, key, ok, err)
		}
	}
	if ips, err := tab.FetchSources(ctx); err != nil || len(ips) != 2 {
		t.Errorf("sources = %v, %v", ips, err)
	}
}

// The file that the manual shows is asked over its schema.
func TestManualConf(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.sqlite")
	exec(t, rawDB(t, path), `CREATE TABLE domains (name, active); CREATE TABLE aliases (local, domain, target);
CREATE TABLE users (local, domain, password, active); CREATE TABLE transports (destination, nexthop, priority, weight); CREATE TABLE outgoing (address);
INSERT INTO domains VALUES ('example.org', 1); INSERT INTO users VALUES ('alice', 'example.org', '$6$x', 1);
INSERT INTO aliases VALUES ('info', 'example.org', 'alice@example.org'), ('info', 'example.org', 'bob@example.com');
INSERT INTO transports VALUES ('partner.example', 'mx.partner.example', 10, 1); INSERT INTO outgoing VALUES ('192.0.2.1')`)
	conf := docBlocks(t, "sql.md", "conf")[0]
	tab := openTable(t, writeFile(t, filepath.Join(dir, "t.conf"), strings.Replace(conf, "/var/lib/mail/mail.sqlite", path, 1)))
	if err := tab.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		s         table.Service
		key, want string
	}{
		{table.Alias, "info@example.org", "alice@example.org bob@example.com"},
		{table.Credentials, "alice@example.org", "alice@example.org $6$x"},
		{table.UserInfo, "alice@example.org", `5000 5000 "/var/vmail/example.org/alice"`},
		{table.MailAddrMap, "alice@example.org", "info@example.org"},
		{table.RelayHost, "partner.example", "tls://mx.partner.example"},
	} {
		if got, err := tabletest.Print(ctx, tab, tt.s, tt.key); err != nil || got != tt.want {
			t.Errorf("%s %q = %q, %v; want %q", tt.s, tt.key, got, err, tt.want)
		}
	}
	if ok, err := tab.Check(ctx, table.Domain, "example.org"); !ok || err != nil {
		t.Errorf("domain: %v, %v", ok, err)
	}
	if ips, err := tab.FetchSources(ctx); err != nil || len(ips) != 1 {
		t.Errorf("sources = %v, %v", ips, err)
	}
}
