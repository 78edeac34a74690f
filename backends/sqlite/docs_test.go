package sqlite

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"tabard/table"
	"tabard/table/tabletest"
)

// docBlocks returns the blocks of a language in docs/tables.md.
func docBlocks(t *testing.T, lang string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "tables.md"))
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
	for _, block := range docBlocks(t, "sql") {
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

func TestManualConf(t *testing.T) {
	for _, block := range docBlocks(t, "conf") {
		src, err := parseConf(block)
		if err != nil || src.queries.Empty() {
			t.Errorf("%v\n%s", err, block)
		}
	}
}
