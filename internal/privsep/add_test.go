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

// One that does not come up leaves nothing behind.
func TestAddFails(t *testing.T) {
	t.Parallel()
	s := startAround(t, config{}, generation(config{}, config{}), Options{StartTimeout: 10 * time.Second})
	for what, cfg := range map[string]config{"no luck": {Fail: "no luck"}, "exit status 7": {Exit: true}} {
		if err := s.Add(t.Context(), Spec{Name: "extra", Init: cfg}, Edge{"watch", "extra", "front"}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		if p := process1(s.Supervisor, "extra"); p.Name != "" || len(s.edges) != 2 {
			t.Errorf("left: %+v, %d edges", p, len(s.edges))
		}
	}
	if err := s.Add(t.Context(), Spec{Name: "x"}, Edge{"e", "x", "nobody"}); !errors.Is(err, ErrNoSuch) {
		t.Errorf("an edge to nobody: %v", err)
	}
	s.stop()
	<-s.done
	if err := s.Add(t.Context(), Spec{Name: "late"}); !errors.Is(err, ErrStopping) {
		t.Errorf("after the stop: %v", err)
	}
}
