package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"tabard/backends/eventdb"
	"tabard/internal/config"
	"tabard/internal/eventlog"
	"tabard/internal/rpc"
)

// eventTable returns the table of the event log and its database, or an empty name
// when the configuration has none.
func eventTable(cfg *config.Config) (string, eventdb.Source, error) {
	name := string(cfg.LogSQL.Table)
	for _, t := range cfg.Tables {
		if t.Name != name || name == "" {
			continue
		}
		src, own, err := database(t)
		switch {
		case err != nil:
			return "", eventdb.Source{}, exitf(exConfig, "%s: table %s: %w", t.Pos, t.Name, err)
		case !own:
			return "", eventdb.Source{}, exitf(exConfig, "%s: log sql <%s>: the event log needs a table on SQLite or PostgreSQL with Tabard's own schema, declared at %s", cfg.Where["log sql"], t.Name, t.Pos)
		}
		return name, src, nil
	}
	return "", eventdb.Source{}, nil
}

// newFeed gives the events of a process to lookup, if there is an event log.
func newFeed(toLookup rpc.Caller, process string, c common, on bool, log *slog.Logger) *eventlog.Feed {
	return eventlog.NewFeed(toLookup, eventlog.Options{Process: process, Node: c.Host, Log: log, Off: !on})
}

// eventStore is the event log in lookup.
type eventStore struct {
	*eventlog.Hub
	db   *eventdb.DB // nil: there is none
	keep eventdb.Keep
	log  *slog.Logger
}

// openEvents reads where the event log is. Its database is opened when there is
// something to write.
func openEvents(cfg *config.Config, log *slog.Logger) (*eventStore, error) {
	name, src, err := eventTable(cfg)
	if err != nil || name == "" {
		return &eventStore{Hub: eventlog.NewHub("", nil)}, err
	}
	db := eventdb.New(src)
	return &eventStore{eventlog.NewHub(name, db), db, eventdb.Keep{Age: cfg.LogSQL.Keep, Bytes: cfg.LogSQL.MaxSize}, log}, nil
}

// How often old events are deleted. The first time is soon after the start, so that a
// server that is often started does it, too.
const (
	pruneFirst = time.Minute
	pruneEvery = 10 * time.Minute
)

// prune deletes old events until ctx ends.
func (s *eventStore) prune(ctx context.Context) {
	if s.db == nil {
		return
	}
	next := time.NewTimer(pruneFirst)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-next.C:
			n, err := s.db.Prune(ctx, s.keep, now)
			switch {
			case err != nil && ctx.Err() == nil:
				s.log.Warn("old events are not deleted from the event log", "error", err)
			case n > 0:
				s.log.Info("old events deleted from the event log", "events", n)
			}
			next.Reset(pruneEvery)
		}
	}
}

func (s *eventStore) close() {
	if s.db == nil {
		return
	}
	if err := s.db.Close(); err != nil {
		s.log.Warn("event log not closed", "error", strings.TrimSpace(err.Error()))
	}
}
