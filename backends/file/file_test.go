package file

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"tabard/internal/config"
	"tabard/table"
	"tabard/table/tabletest"
)

func TestSuite(t *testing.T) {
	tabletest.Run(t, func(t *testing.T, d tabletest.Data) table.Backend {
		var b strings.Builder
		if !d.Mapping {
			b.WriteString("# @list\n")
		}
		for _, r := range d.Records {
			key := r.Key
			if d.Mapping && strings.ContainsAny(key, ": ") && key[0] != '[' {
				key = `"` + key + `"`
			}
			b.WriteString(key)
			if d.Mapping {
				b.WriteString("\t" + r.Text(d.Service))
			}
			b.WriteString("\n")
		}
		path := filepath.Join(t.TempDir(), "table")
		write(t, path, b.String())
		backend, err := Open(context.Background(), config.Table{Name: "t", Source: path}, table.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return backend
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// logs is a log that can be waited on.
type logs struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	lines chan string
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	l.lines <- string(p)
	return len(p), nil
}

// await returns the next line with text in it.
func (l *logs) await(t *testing.T, text string) string {
	t.Helper()
	for {
		select {
		case line := <-l.lines:
			if strings.Contains(line, text) {
				return line
			}
		case <-time.After(time.Minute): // only so that a failure has a name
			t.Fatalf("log never said %q", text)
		}
	}
}

// followed opens a table file whose reloads can be awaited.
func followed(t *testing.T, path string) (*Table, *logs) {
	t.Helper()
	l := &logs{lines: make(chan string, 1000)}
	b, err := Open(context.Background(), config.Table{Name: "t", Source: path}, table.Options{Log: slog.New(slog.NewTextHandler(l, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.(*Table), l
}

func expect(t *testing.T, b table.Backend, key, want string) {
	t.Helper()
	row, err := b.Lookup(context.Background(), table.Alias, key)
	if err != nil || len(row) != 1 || row[0] != want {
		t.Errorf("lookup %q = %q, %v; want %q", key, row, err, want)
	}
}

const (
	loaded  = "table reloaded"
	refused = "not loaded"
)

func TestFollows(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "aliases")
	tests := []struct {
		name   string
		change func(t *testing.T)
	}{
		{"written in place", func(t *testing.T) { write(t, path, "root two\n") }},
		{"renamed over", func(t *testing.T) {
			write(t, path+".new", "root two\n")
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}},
		{"removed and created", func(t *testing.T) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			write(t, path, "root two\n")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			write(t, path, "root one\n")
			b, l := followed(t, path)
			expect(t, b, "root", "one")
			tt.change(t)
			l.await(t, loaded)
			expect(t, b, "root", "two")
		})
	}
}

// What is renamed into place is read at once: only what is written in place has
// to rest first, here for an hour.
func TestRenamedNeedNotRest(t *testing.T) {
	dir := t.TempDir()
	path, l := filepath.Join(dir, "aliases"), &logs{lines: make(chan string, 1000)}
	write(t, path, "root one\n")
	b, err := open(t.Context(), config.Table{Name: "t", Source: path}, table.Options{Log: slog.New(slog.NewTextHandler(l, nil))}, settling{time.Hour, time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	for _, value := range []string{"two", "three"} {
		write(t, path+".new", "root "+value+"\n")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		l.await(t, loaded)
		expect(t, b, "root", value)
	}
}

func TestArrived(t *testing.T) {
	ev := func(op fsnotify.Op, name string) fsnotify.Event { return fsnotify.Event{Name: name, Op: op} }
	for what, c := range map[string]struct {
		events []fsnotify.Event
		want   bool
	}{
		"renamed over":          {[]fsnotify.Event{ev(fsnotify.Rename, "/d/new"), ev(fsnotify.Create, "/d/t")}, true},
		"a link on the way":     {[]fsnotify.Event{ev(fsnotify.Rename, "/d/tmp"), ev(fsnotify.Create, "/d/..data")}, true},
		"written in place":      {[]fsnotify.Event{ev(fsnotify.Write, "/d/t")}, false},
		"created":               {[]fsnotify.Event{ev(fsnotify.Create, "/d/t")}, false},
		"moved away, created":   {[]fsnotify.Event{ev(fsnotify.Rename, "/d/t"), ev(fsnotify.Create, "/d/t~"), ev(fsnotify.Create, "/d/t")}, false},
		"moved away, and again": {[]fsnotify.Event{ev(fsnotify.Rename, "/d/t"), ev(fsnotify.Create, "/d/t")}, false},
		"another renamed":       {[]fsnotify.Event{ev(fsnotify.Rename, "/d/x"), ev(fsnotify.Create, "/d/y"), ev(fsnotify.Create, "/d/t")}, false},
	} {
		f := follower{names: []string{"/d/t", "/d/..data"}}
		got := false
		for _, e := range c.events {
			got = f.arrived(e)
		}
		if got != c.want {
			t.Errorf("%s: %v; want %v", what, got, c.want)
		}
	}
}

// As Kubernetes does: table -> ..data/table, ..data -> a directory.
func TestFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{"root one\n", "root two\n"} {
		sub := filepath.Join(dir, fmt.Sprint("v", i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(sub, "table"), text)
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, "tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("v0", "..data")
	link("..data/table", "table")
	b, l := followed(t, filepath.Join(dir, "table"))
	expect(t, b, "root", "one")
	link("v1", "..data")
	l.await(t, loaded)
	expect(t, b, "root", "two")
	write(t, filepath.Join(dir, "v1", "table"), "root three\n")
	l.await(t, loaded)
	expect(t, b, "root", "three")
	link("v0/table", "table")
	l.await(t, loaded)
	expect(t, b, "root", "one")
}

func TestBadFileKeepsTheOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aliases")
	write(t, path, "root one\n")
	b, l := followed(t, path)
	for name, bad := range map[string]string{"no value": "root two\nlonely\n", "a list": "root\nx\n", "NUL": "root \x00\n"} {
		write(t, path, bad)
		l.await(t, refused)
		expect(t, b, "root", "one")
		if err := b.Ping(context.Background()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Ping: %v", name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l.await(t, refused)
	expect(t, b, "root", "one")
	write(t, path, "root back\n")
	l.await(t, loaded)
	expect(t, b, "root", "back")
	if err := b.Ping(context.Background()); err != nil {
		t.Errorf("Ping after repair: %v", err)
	}
}

// A pattern that does not compile is found before it is in force, once the
// table has been asked for patterns.
func TestBadPatternKeepsTheOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "patterns")
	write(t, path, "^a\n")
	b, l := followed(t, path)
	check := func(key string) {
		t.Helper()
		if ok, err := b.Check(context.Background(), table.Regex, key); !ok || err != nil {
			t.Errorf("check %q = %v, %v", key, ok, err)
		}
	}
	check("abc")
	write(t, path, "^b\n(\n")
	if line := l.await(t, refused); !strings.Contains(line, "missing closing )") {
		t.Errorf("log does not say what is wrong: %s", line)
	}
	check("abc")
	write(t, path, "^b\n")
	l.await(t, loaded)
	check("bcd")
}

func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aliases")
	write(t, path, "root one\n")
	b, l := followed(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	changes := make(chan table.Change, 10)
	ended := make(chan error, 1)
	go func() { ended <- b.Watch(ctx, func(c table.Change) { changes <- c }) }()
	// Watch has no sign of having begun: change until it tells.
	for i := 0; len(changes) == 0; i++ {
		write(t, path, fmt.Sprintf("root n%d\n", i))
		l.await(t, loaded)
	}
	if c := <-changes; c != (table.Change{}) {
		t.Errorf("change = %+v; want everything", c)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Watch: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	write(t, bad, "k v\nlonely\n")
	for path, want := range map[string]string{filepath.Join(dir, "none"): "no such file", bad: "line 2", dir: "regular"} {
		if _, err := Open(context.Background(), config.Table{Source: path}, table.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v; want %s", err, want)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	var buf bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&buf, "u%d@example.org target%d\n", i, i)
	}
	path := filepath.Join(b.TempDir(), "aliases")
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		t, err := Open(context.Background(), config.Table{Source: path}, table.Options{})
		if err != nil {
			b.Fatal(err)
		}
		t.Close()
	}
}

func BenchmarkLookup(b *testing.B) {
	var buf bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&buf, "u%d@example.org target%d\n", i, i)
	}
	path := filepath.Join(b.TempDir(), "aliases")
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	t, err := Open(context.Background(), config.Table{Source: path}, table.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer t.Close()
	for b.Loop() {
		if _, err := t.Lookup(context.Background(), table.Alias, "u77777@example.org"); err != nil {
			b.Fatal(err)
		}
	}
}
