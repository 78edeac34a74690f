package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// follow watches a table and returns a channel that gets a value for each change,
// once the watch is in force.
func follow(t testing.TB, path string) (b table.Backend, changes chan table.Change, ended chan error) {
	t.Helper()
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: path}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	changes, ended = make(chan table.Change, 1000), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- b.(table.Watcher).Watch(ctx, func(c table.Change) { changes <- c }) }()
	t.Cleanup(func() {
		cancel()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, changes, ended
}

func await(t testing.TB, what string, changes chan table.Change, ended chan error) {
	t.Helper()
	select {
	case c := <-changes:
		if c != (table.Change{}) {
			t.Errorf("%s: %+v", what, c)
		}
	case err := <-ended:
		t.Fatalf("%s: the watch ended: %v", what, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: not told", what)
	}
}

// drain forgets changes until none comes for longer than it is between looks.
func drain(changes chan table.Change) {
	for {
		select {
		case <-changes:
		case <-time.After(30 * lookMost):
			return
		}
	}
}

func TestWatchTellsCommits(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE", "TRUNCATE"} {
		t.Run(mode, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mail.db")
			db := newDB(t, path)
			var now string
			if err := db.QueryRow("PRAGMA journal_mode=" + mode).Scan(&now); err != nil {
				t.Fatal(err)
			}
			_, changes, ended := follow(t, path)
			await(t, "in force", changes, ended)
			for i := range 5 {
				drain(changes)
				exec(t, db, `INSERT INTO aliases (address, target) VALUES (?, 'x')`, fmt.Sprint("user", i))
				await(t, fmt.Sprint("commit ", i), changes, ended)
			}
		})
	}
}

func TestWatchTellsAnotherFile(t *testing.T) {
	dir := t.TempDir()
	make := func(name, target string) string {
		path := filepath.Join(dir, name)
		exec(t, newDB(t, path), `INSERT INTO aliases (address, target) VALUES ('root', ?)`, target)
		return path
	}
	one, two, three := make("one.db", "one"), make("two.db", "two"), make("three.db", "three")
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	b, changes, ended := follow(t, link)
	tab := table.New("mail", b, 0)
	await(t, "in force", changes, ended)
	for _, target := range []string{two, three} {
		drain(changes)
		if err := os.Symlink(target, link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
		await(t, "link moved", changes, ended)
		nodes, err := tab.Aliases(t.Context(), "root")
		if err != nil || nodes[0].Text+".db" != filepath.Base(target) {
			t.Errorf("after the link moved to %s: %v, %v", target, nodes, err)
		}
	}
	drain(changes)
	if err := os.Rename(one, three); err != nil {
		t.Fatal(err)
	}
	await(t, "renamed over", changes, ended)
}

// A queue beside the tables is written to all the time; that wakes nobody. What is
// written to the database or its log does, also when these came later.
func TestNotifierKnowsItsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string) {
		t.Helper()
		f, err := os.OpenFile(path(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err == nil {
			_, err = f.WriteString("x")
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write("mail.db")
	write("queue.db-wal")
	n, err := newNotifier()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	watch := func() {
		t.Helper()
		if !n.watch([]string{dir}, []string{path("mail.db"), path("mail.db-wal")}) {
			t.Error("not all is watched")
		}
	}
	told := func(what string) (renamed bool) {
		t.Helper()
		select {
		case <-n.events:
		case <-time.After(30 * time.Second):
			t.Fatal("not told: " + what)
		}
		return n.renamed()
	}
	watch()
	for range 20 {
		write("queue.db-wal")
	}
	select {
	case <-n.events:
		t.Error("told of a write to another file")
	case <-time.After(20 * time.Millisecond):
	}
	write("mail.db")
	if told("a write to the database") {
		t.Error("a write is told as a name that came or went")
	}
	write("mail.db-wal")
	if !told("a new log") {
		t.Error("a new name is told as a write")
	}
	watch()
	for len(n.events) > 0 {
		<-n.events
	}
	write("mail.db-wal")
	told("a write to the new log")
	if err := os.Rename(path("queue.db-wal"), path("mail.db")); err != nil {
		t.Fatal(err)
	}
	for !told("another database") { // after what was written to the log
	}
	watch()
}

// A watch that cannot see the database ends with an error, and can begin again.
func TestWatchOfMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	b, changes, ended := follow(t, path)
	if err := <-ended; err == nil || !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
	newDB(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	again := make(chan error, 1)
	go func() { again <- b.(table.Watcher).Watch(ctx, func(c table.Change) { changes <- c }) }()
	await(t, "in force", changes, again)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := <-again; err == nil {
		t.Error("the file vanished: no error")
	}
	cancel()
}

// Closing the table ends a watch whatever its context.
func TestWatchEndsWithTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail.db")
	newDB(t, path)
	b, err := Open(context.Background(), config.Table{Name: "mail", Source: path}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	inForce, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() {
		ended <- b.(table.Watcher).Watch(context.Background(), func(table.Change) { inForce <- struct{}{} })
	}()
	<-inForce
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("no error")
	}
}

// BenchmarkCommitToTold reports how long after COMMIT a change is told.
func BenchmarkCommitToTold(b *testing.B) {
	path := filepath.Join(b.TempDir(), "mail.db")
	db := newDB(b, path)
	exec(b, db, "PRAGMA journal_mode=WAL")
	backend, err := Open(context.Background(), config.Table{Name: "mail", Source: path}, table.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var told atomic.Int64
	signal := make(chan struct{}, 1000)
	go func() {
		_ = backend.(table.Watcher).Watch(ctx, func(table.Change) {
			told.Store(time.Now().UnixNano())
			signal <- struct{}{}
		})
	}()
	<-signal
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		for len(signal) > 0 {
			<-signal
		}
		exec(b, db, `INSERT INTO aliases (address, target) VALUES (?, 'x')`, fmt.Sprint("user", i))
		committed := time.Now()
		<-signal
		took = append(took, max(0, time.Duration(told.Load()-committed.UnixNano())))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// A commit can be seen when the disk has it, which may be long after its event.
func TestLooksUntilTheDiskIsDone(t *testing.T) {
	begin := time.Now()
	var l looks
	l.event(begin)
	if l.again != lookFirst {
		t.Errorf("first look after %v", l.again)
	}
	now := begin
	for l.again > 0 {
		if l.again > lookMost {
			t.Fatalf("a pause of %v", l.again)
		}
		now = now.Add(l.again)
		l.looked(now)
	}
	if looked := now.Sub(begin); looked < lookTotal-lookMost || looked > lookTotal {
		t.Errorf("looked for %v", looked)
	}
	l.looked(now.Add(slowPoll)) // a poll does not begin it again
	if l.again != 0 {
		t.Errorf("again after %v", l.again)
	}
}
