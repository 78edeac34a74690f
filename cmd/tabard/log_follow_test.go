package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/eventdb"
	"tabard/internal/eventlog"
)

// An event that comes hours late is followed as well, and none comes twice.
func TestLogFollow(t *testing.T) {
	t.Parallel()
	_, path := eventConfig(t)
	db := eventdb.New(eventdb.Source{Path: path})
	t.Cleanup(func() { _ = db.Close() })
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	write := func(id string, at time.Time) {
		t.Helper()
		b := &eventlog.Batch{Messages: []eventlog.Message{{Head: eventlog.Head{At: at, Key: 1}, ID: id}}}
		if err := db.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	write("first", noon)
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	c := &logCommand{follow: true, now: time.Now, interval: time.Millisecond}
	done := make(chan error, 1)
	go func() {
		done <- c.print(ctx, &cobra.Command{}, db, newEventPrinter(out))
		_ = out.Close()
	}()
	lines := bufio.NewScanner(in)
	for i, want := range []string{"first", "late", "last"} {
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Fatalf("%q, want %s", lines.Text(), want)
		}
		switch i {
		case 0:
			write("late", noon.Add(-5*time.Hour))
		case 1:
			write("last", noon.Add(time.Hour))
		}
	}
	cancel()
	if lines.Scan() {
		t.Errorf("again: %q", lines.Text())
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
