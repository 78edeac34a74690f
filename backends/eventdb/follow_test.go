package eventdb

import (
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"tabard/internal/eventlog"
	"tabard/internal/pgtest"
)

// came returns the seconds of the events of a query that came after a mark.
func came(t *testing.T, d *DB, q Query, m *Mark) []int {
	t.Helper()
	var got []int
	if err := d.After(t.Context(), q, m, func(e eventlog.Event) error {
		got = append(got, int(e.Common().At.Sub(noon())/time.Second))
		return nil
	}); err != nil {
		t.Errorf("%+v: %v", q, err)
	}
	return got
}

func marked(t *testing.T, d *DB) *Mark {
	t.Helper()
	m, err := d.Mark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func written(t *testing.T, d *DB, seconds ...int) {
	t.Helper()
	b := &eventlog.Batch{}
	for _, n := range seconds {
		b.Messages = append(b.Messages, eventlog.Message{Head: at(n), ID: fmt.Sprint(n)})
	}
	if err := d.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// Events are followed in the order in which they come: late ones are not missed, and
// none comes twice.
func TestFollow(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		written(t, d, 1000, 1001)
		m := marked(t, d)
		if got := came(t, d, Query{}, m); got != nil {
			t.Errorf("from before: %v", got)
		}
		written(t, d, 5000, 1000) // the second is there already
		written(t, d, 3, 2, 1)    // waited for hours
		written(t, d, 1001)       // nothing new
		if got := found(t, d, Query{Upto: m}); !slices.Equal(got, []int{1000, 1001}) {
			t.Errorf("up to the mark: %v", got)
		}
		got := came(t, d, Query{}, m) // in groups, by how near they are
		if slices.Sort(got); !slices.Equal(got, []int{1, 2, 3, 5000}) {
			t.Errorf("%v", got)
		}
		if got := came(t, d, Query{}, m); got != nil {
			t.Errorf("again: %v", got)
		}
		written(t, d, 4)
		if got := came(t, d, Query{Since: at(5).At}, m); got != nil {
			t.Errorf("what is too old: %v", got)
		}
		// An error of the database leaves the mark where it is.
		written(t, d, 6000)
		if _, err := d.db.Exec("ALTER TABLE log_losses RENAME TO away"); err != nil {
			t.Fatal(err)
		}
		if err := d.After(t.Context(), Query{}, m, nil); err == nil {
			t.Error("no error")
		}
		if _, err := d.db.Exec("ALTER TABLE away RENAME TO log_losses"); err != nil {
			t.Fatal(err)
		}
		if got := came(t, d, Query{}, m); !slices.Equal(got, []int{6000}) {
			t.Errorf("after an error: %v", got)
		}
	})
}

// Transactions of PostgreSQL may end in another order than they begin.
func TestFollowCommitsOutOfOrder(t *testing.T) {
	t.Parallel()
	d := opened(t, Source{Conninfo: pgtest.Database(t)}) // SQLite has one writer at a time
	written(t, d, 1)
	begin := func(seconds int) *sql.Tx {
		tx, err := d.db.BeginTx(t.Context(), nil)
		if err == nil {
			_, err = d.d.add(t.Context(), tx, &eventlog.Batch{Losses: []eventlog.Loss{{Head: at(seconds), Since: noon(), Until: noon()}}}, &d.prepared)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback() })
		return tx
	}
	early := begin(2)
	written(t, d, 3)
	m := marked(t, d)
	written(t, d, 4)
	late := begin(5)
	steps := []struct {
		commit *sql.Tx
		want   []int
	}{{nil, []int{4}}, {late, []int{5}}, {nil, nil}, {early, []int{2}}, {nil, nil}}
	for i, s := range steps {
		if s.commit != nil {
			if err := s.commit.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if got := found(t, d, Query{Upto: m}); i == 0 && !slices.Equal(got, []int{1, 3}) {
			t.Errorf("up to the mark: %v", got)
		}
		if got := came(t, d, Query{}, m); !slices.Equal(got, s.want) {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
}

// The recipient of a message may come after the message, from another process.
func TestFollowRelated(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		written(t, d, 1)
		m := marked(t, d)
		now := noon()
		m.now = func() time.Time { return now }
		q := Query{Address: "bob@b.example"}
		written(t, d, 50, 51)
		if got := came(t, d, q, m); got != nil {
			t.Errorf("%v", got)
		}
		envelope := func(seconds int, of string) {
			t.Helper()
			e := eventlog.Envelope{Head: at(seconds), Party: eventlog.Party{Message: of, Address: "bob@b.example", Domain: "b.example"}}
			if err := d.Write(t.Context(), &eventlog.Batch{Envelopes: []eventlog.Envelope{e}}); err != nil {
				t.Fatal(err)
			}
		}
		envelope(52, "50")
		if got := came(t, d, q, m); !slices.Equal(got, []int{50, 52}) {
			t.Errorf("%v", got)
		}
		envelope(53, "50")
		if got := came(t, d, q, m); !slices.Equal(got, []int{53}) {
			t.Errorf("%v", got)
		}
		for range 3 { // then all is forgotten
			now = now.Add(maxRelated + time.Second)
			if got := came(t, d, q, m); got != nil {
				t.Errorf("%v", got)
			}
		}
		if len(m.recent)+len(m.shown) > 0 {
			t.Errorf("%d batches and %d events are remembered", len(m.recent), len(m.shown))
		}
	})
}

// A log that was made anew is followed from its begin.
func TestFollowNewFile(t *testing.T) {
	t.Parallel()
	d := opened(t, Source{Path: emptyFile(t)})
	written(t, d, 1)
	written(t, d, 2)
	m := marked(t, d)
	if _, err := d.db.Exec("DELETE FROM log_batches; DELETE FROM sqlite_sequence"); err != nil {
		t.Fatal(err)
	}
	written(t, d, 3)
	if got := came(t, d, Query{}, m); !slices.Equal(got, []int{3}) {
		t.Errorf("%v", got)
	}
}

func TestBatchesAreForgotten(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		written(t, d, 1)
		for _, tt := range []struct {
			now  time.Time
			want int
		}{{time.Now().Add(keepBatches - time.Minute), 1}, {time.Now().Add(keepBatches + time.Minute), 0}} {
			if _, err := d.Prune(t.Context(), Keep{}, tt.now); err != nil {
				t.Fatal(err)
			}
			var n int
			if err := d.db.QueryRow("SELECT count(*) FROM log_batches").Scan(&n); err != nil || n != tt.want {
				t.Errorf("%d, %v; want %d", n, err, tt.want)
			}
		}
		if got := found(t, d, Query{Upto: marked(t, d)}); len(got) != 1 {
			t.Errorf("%v", got)
		}
	})
}

// Who could not ask PostgreSQL for hours misses nothing of them.
func TestFollowHeldUp(t *testing.T) {
	t.Parallel()
	d := opened(t, Source{Conninfo: pgtest.Database(t)})
	written(t, d, 0)
	m := marked(t, d)
	m.asked = m.asked.Add(-4 * maxCommit)
	written(t, d, 1)
	if _, err := d.db.Exec("UPDATE log_batches SET written = written - $1 * interval '1 second'", (3 * maxCommit).Seconds()); err != nil {
		t.Fatal(err)
	}
	written(t, d, 2)
	for _, want := range [][]int{{1, 2}, nil} {
		if got := came(t, d, Query{}, m); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}
