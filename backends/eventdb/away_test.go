package eventdb

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tabard/internal/eventlog"
	"tabard/internal/pgtest"
	"tabard/internal/rpc"
)

// sometimes is a database of each dialect that is not there at first; come brings it.
func sometimes(t *testing.T) map[string]func() (src Source, come func()) {
	return map[string]func() (Source, func()){
		"sqlite": func() (Source, func()) {
			path := filepath.Join(t.TempDir(), "log.db")
			return Source{Path: path}, func() {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Error(err)
				}
			}
		},
		"postgres": func() (Source, func()) {
			url := pgtest.Database(t)
			return Source{Conninfo: strings.Replace(url, "?", "_late?", 1)}, func() {
				cfg, err := pgx.ParseConfig(url)
				if err != nil {
					t.Fatal(err)
				}
				name := cfg.Database
				if err := pgtest.Shared(t).Exec(t.Context(), "postgres", "ALTER DATABASE "+name+" RENAME TO "+name+"_late"); err != nil {
					t.Error(err)
				}
			}
		},
	}
}

// While the database is away so many events wait; the others are counted, and a row
// tells of them when it is back: rows and losses together are all that happened.
func TestAway(t *testing.T) {
	t.Parallel()
	for name, prepare := range sometimes(t) {
		src, come := prepare()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := opened(t, src)
			hub := eventlog.NewHub("log", db)
			near, far := net.Pipe()
			srv := rpc.NewServer()
			if err := hub.Register(srv, "queue"); err != nil {
				t.Fatal(err)
			}
			go func() { _ = srv.Serve(t.Context(), far) }()
			feed := eventlog.NewFeed(rpc.NewClient(near), eventlog.Options{Process: "queue", MaxEvents: 30, Gather: time.Millisecond, Retry: time.Millisecond})
			const happened = 100
			for n := range happened {
				feed.Record(&eventlog.Message{ID: fmt.Sprint(n)})
			}
			await(t, func() bool { return hub.Status().Fault != "" })
			if st := hub.Status(); st.Since == nil || len(st.Processes) != 1 || st.Processes[0].Written != 0 {
				t.Errorf("while it is away: %+v", st)
			}
			come()
			var kept, lost int64
			await(t, func() bool { lost = feed.Stats().Lost; return feed.Stats().Waiting == 0 })
			feed.Record(&eventlog.Message{ID: "after"})
			feed.Close()
			var told int64
			if err := db.Select(t.Context(), Query{}, func(e eventlog.Event) error {
				if l, ok := e.(*eventlog.Loss); ok {
					told += l.Count
				} else {
					kept++
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if kept+told != happened+1 || told != lost || kept < 30 || told == 0 {
				t.Errorf("%d events, and %d lost of which rows tell; the counter says %d; want %d", kept, told, lost, happened+1)
			}
			if st := hub.Status(); st.Fault != "" || st.Processes[0].Lost != lost {
				t.Errorf("after: %+v", st)
			}
		})
	}
}

// await waits for what has no event of its own.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("it never happened")
		case <-tick.C:
		}
	}
}
