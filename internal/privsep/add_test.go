package privsep

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A permanent process comes and goes while the others run: it lives as those
// from the start do, and nothing is left of it afterwards.
func TestAddAndRemove(t *testing.T) {
	t.Parallel()
	s := startGenerations(t)
	l, err := Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(t.TempDir(), "journal")
	spec := Spec{Name: "extra", Init: config{Journal: journal}, Listeners: []Listener{{"http", l}}}
	edge := Edge{"watch", "extra", "front"}
	for range 2 {
		if err := s.Add(t.Context(), spec, edge); err != nil {
			t.Fatal(err)
		}
		if err := s.Add(t.Context(), spec, edge); !errors.Is(err, ErrRunning) {
			t.Errorf("twice: %v", err)
		}
		first := pid(s.Supervisor, "extra")
		if got := peerOf(t, s, "extra"); got != pid(s.Supervisor, "front") {
			t.Errorf("it reaches %d", got)
		}
		kill(t, first)
		eventually(t, "it is started again", func() bool { p := pid(s.Supervisor, "extra"); return p != 0 && p != first })
		if err := s.Replace(t.Context(), generation(config{}, config{})); err != nil {
			t.Fatal(err)
		}
		front := pid(s.Supervisor, "front")
		eventually(t, "it reaches the new generation", func() bool { return peerOf(t, s, "extra") == front })
		if err := s.Remove("extra"); err != nil {
			t.Fatal(err)
		}
		if p := process1(s.Supervisor, "extra"); p.Name != "" {
			t.Errorf("left: %+v", p)
		}
		spec.Listeners = nil // closed
	}
	if _, err := l.Stat(); err == nil {
		t.Error("its listener is open")
	}
	if told, err := os.ReadFile(journal); strings.Count(string(told), "extra") != 2 {
		t.Errorf("it was not told to stop: %q, %v", told, err)
	}
	for _, name := range []string{"extra", "front", "nobody"} {
		if err := s.Remove(name); !errors.Is(err, ErrNoSuch) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if n := len(s.edges); n != 2 {
		t.Errorf("%d edges are left", n)
	}
}

// One that does not come up is started again, as one that ended is, and leaves nothing
// behind when it is removed meanwhile.
func TestAddFails(t *testing.T) {
	t.Parallel()
	s := startAround(t, config{}, generation(config{}, config{}), Options{StartTimeout: 10 * time.Second})
	edge := Edge{"watch", "extra", "front"}
	gone := func(what string) {
		t.Helper()
		if err := s.Remove("extra"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if p := process1(s.Supervisor, "extra"); p.Name != "" || len(s.edges) != 2 {
			t.Errorf("%s left: %+v, %d edges", what, p, len(s.edges))
		}
	}
	for what, cfg := range map[string]config{"no luck": {Fail: "no luck"}, "exit status 7": {Exit: true}} {
		if err := s.Add(t.Context(), Spec{Name: "extra", Init: cfg}, edge); !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		eventually(t, "it is started again", func() bool { return process1(s.Supervisor, "extra").Restarts > 1 })
		gone(what)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := s.Add(t.Context(), Spec{Name: "extra", Init: config{Until: file}}, edge); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it comes up", func() bool { return process1(s.Supervisor, "extra").State == StateRunning })
	if got := peerOf(t, s, "extra"); got != pid(s.Supervisor, "front") {
		t.Errorf("it reaches %d", got)
	}
	gone("the one that came up")
	if err := s.Add(t.Context(), Spec{Name: "x"}, Edge{"e", "x", "nobody"}); !errors.Is(err, ErrNoSuch) {
		t.Errorf("an edge to nobody: %v", err)
	}
	s.stop()
	<-s.done
	if err := s.Add(t.Context(), Spec{Name: "late"}); !errors.Is(err, ErrStopping) {
		t.Errorf("after the stop: %v", err)
	}
}

// One that fails for long is removed at once, not when its next start is due.
func TestRemoveInBackoff(t *testing.T) {
	t.Parallel()
	s := startAround(t, config{}, generation(config{}, config{}), Options{Backoff: Backoff{First: time.Hour, Max: time.Hour}})
	if err := s.Add(t.Context(), Spec{Name: "extra", Init: config{Exit: true}}); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
	eventually(t, "it waits", func() bool { p := process1(s.Supervisor, "extra"); return p.State == StateBackoff && p.Restarts == 2 })
	begin := time.Now()
	if err := s.Remove("extra"); err != nil || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}
