package main

import (
	"strings"
	"testing"

	"tabard/backends/eventdb"
	"tabard/internal/eventlog"
)

// Without restrictions the newest hundred are printed, and with -n 0 all.
func TestLogNumber(t *testing.T) {
	t.Parallel()
	conf, path := eventConfig(t)
	db := eventdb.New(eventdb.Source{Path: path})
	t.Cleanup(func() { _ = db.Close() })
	b := &eventlog.Batch{}
	for n := range int64(102) {
		b.Losses = append(b.Losses, eventlog.Loss{Head: eventlog.Head{Key: n}})
	}
	if err := db.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]int{"": 100, "--kind loss": 100, "-n 0": 102, "-n 101": 101, "--text loss -n 0": 1} {
		out, _ := tool(t, "", append([]string{"-c", conf, "log"}, strings.Fields(args)...)...)
		if got := strings.Count(out, "\n"); got != want {
			t.Errorf("log %s prints %d lines, want %d", args, got, want)
		}
	}
}
