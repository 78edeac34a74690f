package main

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tabard/backends/eventdb"
	"tabard/internal/eventlog"
)

// Events older than the configuration's keep are deleted soon after the start, and then
// again and again; no other.
func TestOldEventsGo(t *testing.T) {
	t.Parallel()
	conf, _ := eventConfig(t) // keeps them for 30 days
	cfg, err := loadConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := openEvents(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		const day = 24 * time.Hour
		var b eventlog.Batch
		for id, age := range map[string]time.Duration{"old": 31 * day, "middle": 29 * day, "new": 0} {
			b.Messages = append(b.Messages, eventlog.Message{Head: eventlog.Head{At: time.Now().Add(-age), Key: 1}, ID: id})
		}
		if err := s.db.Write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			s.prune(ctx)
			close(done)
		}()
		for _, tt := range []struct {
			after time.Duration
			want  []string
		}{{pruneFirst - time.Second, []string{"old", "middle", "new"}}, {2 * time.Second, []string{"middle", "new"}}, {day + pruneEvery, []string{"new"}}} {
			time.Sleep(tt.after)
			synctest.Wait()
			var got []string
			if err := s.db.Select(t.Context(), eventdb.Query{}, func(e eventlog.Event) error {
				got = append(got, e.(*eventlog.Message).ID)
				return nil
			}); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		}
		cancel()
		<-done
		s.close()
	})
}
