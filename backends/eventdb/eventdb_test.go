package eventdb

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tabard/internal/eventlog"
	"tabard/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// onBoth runs a test on an empty database of each dialect.
func onBoth(t *testing.T, f func(t *testing.T, src Source)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, Source{Path: emptyFile(t)})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, Source{Conninfo: pgtest.Database(t)})
	})
}

func emptyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func opened(t testing.TB, src Source) *DB {
	t.Helper()
	d := New(src)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// noon is when the example day begins; times are told in seconds after it.
func noon() time.Time { return time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC) }

func at(seconds int) eventlog.Head {
	return eventlog.Head{At: noon().Add(time.Duration(seconds) * time.Second), Key: int64(seconds), Node: "mx", Process: "queue"}
}

// example is a message to two recipients, one of them by an alias, a bounce, and a
// recipient that was refused.
func example() *eventlog.Batch {
	first := eventlog.Party{Session: "s1", Message: "00000000000000a1", Envelope: "00000000000000a1.0", Sender: "Ann@A.example", Address: "bob@b.example"}
	second := eventlog.Party{Session: "s1", Message: "00000000000000a1", Envelope: "00000000000000a1.1", Sender: "Ann@A.example", Recipient: "info@b.example", Address: "carl@c.example"}
	out := second
	out.Session = "s2"
	b := &eventlog.Batch{
		Messages: []eventlog.Message{
			{Head: at(1), ID: "00000000000000a1", Session: "s1", Sender: "Ann@A.example", Size: 1000, Recipients: 2, HeaderID: "m@a.example"},
			{Head: at(9), ID: "00000000000000b1", About: "00000000000000a1"},
		},
		Envelopes: []eventlog.Envelope{{Head: at(2), Party: first, Action: "local"}, {Head: at(3), Party: second, Action: "out"}},
		Attempts: []eventlog.Attempt{
			{Head: at(5), Party: first, Outcome: eventlog.OK, Text: "Delivered"},
			{Head: at(7), Party: out, Outcome: eventlog.Perm, Host: "mx.c.example", Code: 550, Status: "5.1.1", Text: "No such USER"},
		},
		Results: []eventlog.Result{
			{Head: at(4), Party: eventlog.Party{Session: "s1", Sender: "Ann@A.example", Address: "nobody@b.example"}, Result: eventlog.Rejected, Code: 550},
			{Head: at(6), Party: first, Result: eventlog.Delivered, DelayMS: 4000},
			{Head: at(8), Party: second, Result: eventlog.Failed, Code: 550},
		},
		Sessions: []eventlog.Session{
			{Head: at(10), ID: "s1", Direction: eventlog.In, Began: noon(), Reason: "quit"},
			{Head: at(11), ID: "s2", Direction: eventlog.Out, Began: noon()},
			{Head: at(12), ID: "s3", Direction: eventlog.In, Began: noon(), Reason: "timeout"},
		},
		Traces: []eventlog.Trace{{Head: at(13), Message: "00000000000000a1", Stage: "commit", DurationUS: 130}},
		Losses: []eventlog.Loss{{Head: at(14), Since: noon(), Until: noon(), Count: 5}},
	}
	for _, k := range eventlog.Kinds() {
		for _, e := range b.Of(k) {
			eventlog.Clean(e)
		}
	}
	return b
}

// found returns the seconds of the events that a query finds.
func found(t *testing.T, d *DB, q Query) []int {
	t.Helper()
	var got []int
	if err := d.Select(t.Context(), q, func(e eventlog.Event) error {
		got = append(got, int(e.Common().At.Sub(noon())/time.Second))
		return nil
	}); err != nil {
		t.Errorf("%+v: %v", q, err)
	}
	return got
}

func TestQueries(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		for n := range 2 { // again is nothing new
			fresh, err := d.Insert(t.Context(), example())
			if want := int64(14 * (1 - n)); err != nil || fresh != want {
				t.Fatalf("%d new, %v; want %d", fresh, err, want)
			}
		}
		all := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
		for _, tt := range []struct {
			name string
			q    Query
			want []int
		}{
			{"all", Query{}, all},
			{"since and until", Query{Since: at(3).At, Until: at(5).At}, []int{3, 4}},
			{"kinds", Query{Kinds: []eventlog.Kind{eventlog.KindLoss, eventlog.KindTrace}}, []int{13, 14}},
			{"newest", Query{Newest: 3}, []int{12, 13, 14}},
			{"sender", Query{Address: "ann@a.EXAMPLE"}, []int{1, 2, 3, 4, 5, 6, 7, 8}},
			{"recipient", Query{Address: "BOB@b.example"}, []int{1, 2, 5, 6}},
			{"null sender", Query{Address: NullSender}, []int{9}},
			{"before its alias", Query{Address: "info@B.example"}, []int{1, 3, 7, 8}},
			{"refused", Query{Address: "nobody@b.example"}, []int{4}},
			{"domain of senders", Query{Domain: "A.example"}, []int{1, 2, 3, 5, 6, 7, 8}},
			{"domain of recipients", Query{Domain: "c.example"}, []int{1, 3, 7, 8}},
			{"message", Query{ID: "00000000000000a1"}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13}},
			{"envelope", Query{ID: "00000000000000a1.0"}, []int{1, 2, 5, 6, 10, 13}},
			{"message-id", Query{ID: "<m@a.example>"}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13}},
			{"session", Query{ID: "s1"}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13}},
			{"session of ours", Query{ID: "s2", Kinds: []eventlog.Kind{eventlog.KindAttempt, eventlog.KindSession}}, []int{5, 7, 10, 11}},
			{"session without mail", Query{ID: "s3"}, []int{12}},
			{"unknown", Query{ID: "ffff"}, nil},
			{"result", Query{Result: eventlog.Failed}, []int{8}},
			{"outcome", Query{Result: eventlog.OK}, []int{5}},
			{"text", Query{Text: "no such user"}, []int{7}},
			{"text that is a pattern", Query{Text: "%"}, nil},
			{"together", Query{Address: "ann@a.example", Result: eventlog.Rejected, Since: at(1).At}, []int{4}},
		} {
			if got := found(t, d, tt.q); !slices.Equal(got, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
		}
	})
}

// What is written is read again as it was.
func TestRoundTrip(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		var want []string
		b := &eventlog.Batch{}
		for i, k := range eventlog.Kinds() {
			e := eventlog.New(k)
			for n, f := range e.Fields() {
				switch v := f.Value.(type) {
				case *string:
					*v = fmt.Sprintf("é%d@%d.example", i, n)
				case *int64:
					*v = -int64(1000*i + n)
				case *time.Time:
					*v = noon().Add(time.Duration(1000*i+n) * time.Millisecond)
				}
			}
			eventlog.Clean(e)
			b.Add(e)
			want = append(want, fmt.Sprintf("%+v", e))
		}
		if err := d.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := d.Select(t.Context(), Query{}, func(e eventlog.Event) error {
			got = append(got, fmt.Sprintf("%+v", e))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// many returns n messages, one in each second.
func many(n int) *eventlog.Batch {
	b := &eventlog.Batch{}
	for i := range n {
		b.Messages = append(b.Messages, eventlog.Message{Head: at(i), ID: fmt.Sprint(i), Sender: "a@a.example", Domain: "a.example"})
	}
	return b
}

// A long answer comes in pages, without a gap.
func TestPages(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		const n = 2*pageRows + 1
		if err := d.Write(t.Context(), many(n)); err != nil {
			t.Fatal(err)
		}
		got := found(t, d, Query{Address: "a@a.example"})
		if len(got) != n || !slices.IsSorted(got) || got[n-1] != n-1 {
			t.Errorf("%d events", len(got))
		}
	})
}

func TestPrune(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		if n, err := d.Prune(t.Context(), Keep{Age: time.Hour}, noon()); n != 0 || err != nil {
			t.Fatalf("of a log that is not there: %d, %v", n, err)
		}
		if err := d.Write(t.Context(), many(3000)); err != nil {
			t.Fatal(err)
		}
		deleted, err := d.Prune(t.Context(), Keep{Age: time.Hour}, noon().Add(time.Hour+1500*time.Second))
		if err != nil || deleted != 1500 {
			t.Errorf("by age: %d, %v", deleted, err)
		}
		if got := found(t, d, Query{}); len(got) != 1500 || got[0] != 1500 {
			t.Errorf("%d are left", len(got))
		}
	})
}

// A log on SQLite is no larger than it may be.
func TestPruneSizeSQLite(t *testing.T) {
	t.Parallel()
	d := opened(t, Source{Path: emptyFile(t)})
	if err := d.Write(t.Context(), many(1500)); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		n, err := d.sqliteGauge(d.db).used(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	most, end := size()*2/3, noon().Add(1500*time.Second)
	deleted, err := d.Prune(t.Context(), Keep{Bytes: most}, end)
	if err != nil || deleted < 100 || deleted > 1000 || size() > most {
		t.Errorf("%d, %v, %d bytes of %d", deleted, err, size(), most)
	}
	if n, err := d.Prune(t.Context(), Keep{Bytes: 1}, end); err != nil || n+deleted != 1500 {
		t.Errorf("to nothing: %d, %v", n, err)
	}
}

// The files of a log on PostgreSQL do not grow beyond what they may take: as much is
// deleted as is above it, and what comes afterwards takes its place.
func TestPruneSizePostgres(t *testing.T) {
	t.Parallel()
	d := opened(t, Source{Conninfo: pgtest.Database(t)})
	const batches, each = 12, eventlog.MaxBatch
	for n := range batches {
		if err := d.Write(t.Context(), relayed(n, each/4)); err != nil {
			t.Fatal(err)
		}
	}
	files := func() int64 {
		n, err := postgresFiles(t.Context(), d.db)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	full := files()
	end := noon().Add(batches * time.Second)
	prune := func(most int64) int {
		t.Helper()
		n, err := d.Prune(t.Context(), Keep{Bytes: most}, end)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	if n := prune(full); n != 0 {
		t.Errorf("%d are deleted of a log that is within its limit", n)
	}
	most := full * 2 / 3
	deleted := prune(most)
	if share := float64(deleted) / (batches * each); share < 0.28 || share > 0.46 {
		t.Errorf("%d are deleted, %.0f %%", deleted, 100*share)
	}
	if n := prune(most); n > batches*each/20 {
		t.Errorf("%d more are deleted, as the files are no smaller", n)
	}
	if _, err := d.db.Exec("VACUUM log_messages, log_envelopes, log_attempts, log_results"); err != nil {
		t.Fatal(err)
	}
	for n := range deleted / each {
		if err := d.Write(t.Context(), relayed(batches+n, each/4)); err != nil {
			t.Fatal(err)
		}
	}
	if now := files(); now > full*110/100 {
		t.Errorf("the files grew from %d to %d bytes: what was deleted made no room", full, now)
	}
	end = end.Add(batches * time.Second)
	if prune(1); len(found(t, d, Query{Newest: 1})) > 0 {
		t.Error("a limit of one byte leaves events")
	}
}

// A database that is replaced, or made only later, is found.
func TestReplacedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log.db")
	d := opened(t, Source{Path: path})
	if err := d.Write(t.Context(), many(1)); err == nil || !strings.Contains(err.Error(), "tabard migrate") {
		t.Errorf("%v", err)
	}
	for range 2 {
		_ = os.Remove(path)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Write(t.Context(), many(1)); err != nil {
			t.Fatal(err)
		}
		if got := found(t, d, Query{}); len(got) != 1 {
			t.Errorf("%v", got)
		}
	}
}

// Open wants the schema; Migrate makes it.
func TestOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		if _, err := Open(t.Context(), src); err == nil || !strings.Contains(err.Error(), "tabard migrate") {
			t.Errorf("%v", err)
		}
		if from, to, err := Migrate(t.Context(), src); from != 0 || to < 1 || err != nil {
			t.Fatalf("%d, %d, %v", from, to, err)
		}
		d, err := Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := d.Write(t.Context(), many(1)); err == nil {
			t.Error("written after the end")
		}
	})
}

// A statement that fails leaves nothing of its batch.
func TestBatchIsWhole(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		b := many(1)
		if err := d.Write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if _, err := d.db.Exec("DROP TABLE log_losses"); err != nil {
			t.Fatal(err)
		}
		b = many(3)
		b.Losses = []eventlog.Loss{{Head: at(1), Since: noon(), Until: noon()}}
		if err := d.Write(t.Context(), b); err == nil {
			t.Fatal("written")
		}
		var n int
		if err := d.db.QueryRow("SELECT count(*) FROM log_messages").Scan(&n); err != nil || n != 1 {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// The questions of tabard log find indices.
func TestIndexes(t *testing.T) {
	onBoth(t, func(t *testing.T, src Source) {
		d := opened(t, src)
		if err := d.Write(t.Context(), example()); err != nil {
			t.Fatal(err)
		}
		for _, k := range eventlog.Kinds() {
			for _, q := range []Query{{Address: "a@b.example"}, {Domain: "b.example"}, {Since: at(1).At}} {
				for _, where := range d.where(k, &q, nil) {
					query := d.d.text(fmt.Sprintf("SELECT %s FROM %s WHERE %s", columnsOf(k), tableOf(k), where.text))
					if plan := explain(t.Context(), t, d, query, where.args); strings.Contains(plan, "SCAN "+tableOf(k)) || strings.Contains(plan, "Seq Scan") {
						t.Errorf("%s:\n%s", query, plan)
					}
				}
			}
		}
	})
}

func explain(ctx context.Context, t *testing.T, d *DB, query string, args []any) string {
	t.Helper()
	word := "EXPLAIN QUERY PLAN "
	tx, err := d.db.BeginTx(ctx, &sql.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if d.src.Conninfo != "" {
		word = "EXPLAIN "
		if _, err := tx.Exec("SET LOCAL enable_seqscan = off"); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := tx.Query(word+query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var plan strings.Builder
	for rows.Next() {
		to := make([]any, len(columns))
		var text string
		for i := range to {
			to[i] = new(any)
		}
		to[len(to)-1] = &text
		if err := rows.Scan(to...); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(text + "\n")
	}
	return plan.String()
}
