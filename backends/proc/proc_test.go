package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/logging/logtest"
	"tabard/table"
	"tabard/table/tabletest"
)

// opened returns a table whose program is this test binary.
func opened(t testing.TB, log *logtest.Buffer, args ...string) *table.Table {
	t.Helper()
	source := fmt.Sprintf("'%s' %s", os.Args[0], strings.Join(append([]string{asProgram}, args...), " "))
	o := table.Options{}
	if log != nil {
		o.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	b, err := Open(t.Context(), config.Table{Name: "spy", Kind: "proc", Source: source}, o)
	if err != nil {
		t.Fatal(err)
	}
	tab := table.New("spy", b, 0)
	t.Cleanup(func() { tab.Close() })
	return tab
}

func TestSuite(t *testing.T) {
	for _, mode := range []string{"plain", "framework"} {
		t.Run(mode, func(t *testing.T) {
			tabletest.Run(t, func(t *testing.T, d tabletest.Data) table.Backend {
				text, err := json.Marshal(d)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), "data.json")
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				return opened(t, nil, mode, file).Backend()
			})
		})
	}
}

// eventually asks until the answer is the wanted one: a program that was killed
// is down for a moment.
func eventually(t *testing.T, tab *table.Table, key, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		row, err := tab.Lookup(ctx, table.Alias, key)
		if err == nil && row[0] == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("lookup %q: %q, %v; want %q", key, row, err, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Whatever a program does wrong is a temporary error of the question, and the
// next run of it answers.
func TestMisbehaviour(t *testing.T) {
	var log logtest.Buffer
	tab := opened(t, &log, "plain")
	for _, tt := range []struct{ key, want string }{
		{"do-die", "the program ended"},
		{"do-garbage", "unexpected line"},
		{"do-other-id", "a question that was not asked"},
		{"do-wrong-op", "check-result for a lookup"},
		{"do-empty", "bad answer"},
		{"do-long", "a line longer than"},
		{"do-binary", "not UTF-8"},
		{"do-error", "table is on fire"},
	} {
		eventually(t, tab, "root", "admin")
		_, err := tab.Lookup(t.Context(), table.Alias, tt.key)
		if err == nil || errors.Is(err, table.ErrNotFound) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "table spy: alias") {
			t.Errorf("%s: %v; want %s", tt.key, err, tt.want)
		}
	}
	eventually(t, tab, "do-bars", "a|b|c")
	// What it did not register it is not asked.
	if _, err := tab.Lookup(t.Context(), table.Credentials, "do-die"); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("a service not registered: %v", err)
	}
	if _, err := tab.Check(t.Context(), table.Domain, "do-die"); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("a service not registered: %v", err)
	}
	eventually(t, tab, "root", "admin")
	if !strings.Contains(log.String(), "services=nonsense") {
		t.Errorf("log:\n%s", log.String())
	}
}

// A question that gets no answer costs the caller's patience, and no other
// question; a program that is silent altogether is started again.
func TestSilence(t *testing.T) {
	tab := opened(t, nil, "plain")
	eventually(t, tab, "root", "admin")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := tab.Lookup(ctx, table.Alias, "do-skip"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	if row, err := tab.Lookup(t.Context(), table.Alias, "root"); err != nil || row[0] != "admin" {
		t.Errorf("the next one: %q, %v", row, err)
	}
	if _, err := tab.Lookup(t.Context(), table.Alias, "do-stall"); !errors.Is(err, errStalled) {
		t.Errorf("silence: %v", err)
	}
	eventually(t, tab, "root", "admin")
}

// Answers come in any order.
func TestInFlight(t *testing.T) {
	records := make([]tabletest.Record, 1000)
	for i := range records {
		records[i] = tabletest.Record{Key: fmt.Sprint("user", i), Values: []string{fmt.Sprint("target", i)}}
	}
	text, err := json.Marshal(tabletest.Data{Service: table.Alias, Mapping: true, Records: records})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	tab := opened(t, nil, "hold", file)
	var wg sync.WaitGroup
	for i := range holds {
		wg.Go(func() {
			for n := i; n < 10*holds; n += holds {
				row, err := tab.Lookup(t.Context(), table.Alias, fmt.Sprint("user", n))
				if err != nil || row[0] != fmt.Sprint("target", n) {
					t.Errorf("user%d: %q, %v", n, row, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestHandshake(t *testing.T) {
	for mode, want := range map[string]string{
		"none": "registers no service", "chatter": "where it should register", "quitter": "the program ended",
	} {
		var log logtest.Buffer
		tab := opened(t, &log, mode)
		if err := tab.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", mode, err, want)
		}
		// It is not started again at once, and questions do not wait.
		if _, err := tab.Lookup(t.Context(), table.Alias, "x"); err == nil || errors.Is(err, table.ErrNotFound) {
			t.Errorf("%s: %v", mode, err)
		}
		if mode == "quitter" {
			for !strings.Contains(log.String(), "second line") {
				time.Sleep(time.Millisecond)
			}
			if strings.Contains(log.String(), "\x1b") {
				t.Errorf("log: %q", log.String())
			}
		}
	}
	tab := opened(t, nil, "mute")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := tab.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("mute: %v", err)
	}
}

func TestWatch(t *testing.T) {
	plain := opened(t, nil, "plain")
	eventually(t, plain, "root", "admin")
	if err := plain.Backend().(table.Watcher).Watch(t.Context(), func(table.Change) {}); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("a program that never tells: %v", err)
	}
	tab := opened(t, nil, "tell")
	told := make(chan table.Change, 10)
	ended := make(chan error)
	go func() {
		ended <- tab.Backend().(table.Watcher).Watch(t.Context(), func(c table.Change) { told <- c })
	}()
	if c := <-told; c != (table.Change{}) {
		t.Errorf("in force: %+v", c)
	}
	if _, err := tab.Lookup(t.Context(), table.Alias, "do-tell"); !errors.Is(err, table.ErrNotFound) {
		t.Error(err)
	}
	for _, want := range []table.Change{{Service: table.Alias, Key: "root"}, {}, {}} {
		if c := <-told; c != want {
			t.Errorf("told %+v, want %+v", c, want)
		}
	}
	_, _ = tab.Lookup(t.Context(), table.Alias, "do-die")
	if err := <-ended; err == nil {
		t.Error("the program died: no error")
	}
}

func TestAuth(t *testing.T) {
	text, err := json.Marshal(map[string]any{"Service": table.Auth, "Mapping": false})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	tab := opened(t, nil, "plain", file)
	if yes, err := tab.Authenticates(t.Context()); !yes || err != nil {
		t.Errorf("registered: %v, %v", yes, err)
	}
	// static has no passwords; what counts is that the question arrives.
	if ok, err := tab.Authenticate(t.Context(), "a:b", "c"); ok || err != nil {
		t.Errorf("a colon in the name: %v, %v", ok, err)
	}
	if yes, err := opened(t, nil, "plain").Authenticates(t.Context()); yes || err != nil {
		t.Errorf("not registered: %v, %v", yes, err)
	}
}

// The shell script is a program as somebody else would write it.
func TestScript(t *testing.T) {
	script, err := filepath.Abs("testdata/table-script")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), config.Table{Name: "t", Kind: "proc", Source: "'" + script + "' 'one two'"}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tab := table.New("t", b, 0)
	defer tab.Close()
	for key, want := range map[string]string{"args": "one two", "name": script, "a|b": "bar", "Case": "lower"} {
		row, err := tab.Lookup(t.Context(), table.Alias, key)
		if err != nil || row[0] != want {
			t.Errorf("%s: %q, %v; want %q", key, row, err, want)
		}
	}
	for pass, want := range map[string]bool{"SeCret": true, "secret": false} {
		if ok, err := tab.Authenticate(t.Context(), "alice", pass); ok != want || err != nil {
			t.Errorf("%s: %v, %v", pass, ok, err)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string][]string{
		"/a/b":               {"/a/b"},
		" /a  b\tc ":         {"/a", "b", "c"},
		`/a 'b c' "d e" ''`:  {"/a", "b c", "d e", ""},
		`/a b\ c 'd\e' "\""`: {"/a", "b c", `d\e`, `"`},
		`/a x'y z'w`:         {"/a", "xy zw"},
		"":                   nil,
	} {
		if got, err := split(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`'a`, `"a`, `a\`} {
		if got, err := split(in); err == nil {
			t.Errorf("%q: %q, no error", in, got)
		}
	}
	for _, source := range []string{"", "program", "'"} {
		if _, err := Open(t.Context(), config.Table{Name: "t", Kind: "proc", Source: source}, table.Options{}); err == nil {
			t.Errorf("%q: no error", source)
		}
	}
}

// A program of a type that is not there is said, and looked for again.
func TestMissingProgram(t *testing.T) {
	b, err := Open(t.Context(), config.Table{Name: "t", Kind: "no-such-type", Source: "/x"}, table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.(table.Pinger).Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "table-no-such-type") {
		t.Error(err)
	}
}

func FuzzParseReply(f *testing.F) {
	for _, s := range []string{"lookup-result|1|found|x|y", "check-result|1|found", "fetch-result|1|error", "changed|alias|x", "|||", "lookup-result|1|not-found"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseReply(line)
		if err != nil && !errors.Is(err, errProtocol) {
			t.Errorf("%q: %v", line, err)
		}
		if err == nil && r.found && r.kind != opCheck && r.value == "" {
			t.Errorf("%q: found nothing", line)
		}
		parseChange(line)
		g := registration{services: map[table.Service]bool{}}
		if done, err := g.add(line); done && err == nil {
			t.Errorf("%q: ready without a service", line)
		}
		if words, err := split(line); err == nil && strings.TrimSpace(line) != "" && len(words) == 0 && !strings.ContainsAny(line, " \t") {
			t.Errorf("%q has no words", line)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	tab := opened(b, nil, "plain")
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			b.SetParallelism(callers)
			ask := func() {
				if _, err := tab.Lookup(b.Context(), table.Alias, "root"); err != nil {
					b.Error(err)
				}
			}
			if callers == 1 {
				for b.Loop() {
					ask()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					ask()
				}
			})
		})
	}
}
