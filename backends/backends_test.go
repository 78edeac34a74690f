package backends

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"tabard/internal/config"
	"tabard/table"
)

func TestOpen(t *testing.T) {
	ctx := context.Background()
	missing := filepath.Join(t.TempDir(), "none.db")
	b, err := Open(ctx, config.Table{Kind: "static", List: []string{"a"}}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := b.Check(ctx, table.String, "a"); !ok || err != nil {
		t.Errorf("check = %v, %v", ok, err)
	}
	// A database that is away may come back: the server starts, and check tells.
	if b, err = Open(ctx, config.Table{Kind: "sqlite", Source: missing}, table.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := b.(table.Pinger).Ping(ctx); err == nil {
		t.Error("a missing database answers")
	}
	pos := config.Pos{File: "tabard.conf", Line: 3, Col: 1}
	for kind, want := range map[string]string{"db": `"db" are not supported yet`, "postgres": "no such file", "file": "no such file"} {
		_, err := Open(ctx, config.Table{Pos: pos, Name: "t", Kind: kind, Source: missing}, table.Options{})
		if err == nil || !strings.HasPrefix(err.Error(), "tabard.conf:3:1: table t: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
