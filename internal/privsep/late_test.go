package privsep

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A process that hangs while it starts is killed and started again, as one that ends is:
// one that is added, and one that worked before.
func TestHangsAtStart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	allow := func() {
		t.Helper()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	allow()
	s := startAround(t, config{Hang: file}, generation(config{}, config{}), Options{StartTimeout: 2 * time.Second})
	// Later starts, which are to fail, need not take long. Nothing else reads it now.
	s.mu.Lock()
	s.opts.StartTimeout = 50 * time.Millisecond
	s.mu.Unlock()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), Spec{Name: "extra", Init: config{Hang: file}}, Edge{"watch", "extra", "front"}); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
	kill(t, pid(s.Supervisor, "queue"))
	for _, name := range []string{"extra", "queue"} {
		eventually(t, name+" is started again", func() bool {
			p := process1(s.Supervisor, name)
			return p.Restarts > 2 && strings.HasPrefix(p.LastExit, "not ready after ")
		})
	}
	for _, want := range []string{"process is not ready in time, killing it\" process=extra after=50ms", "process=queue after=100ms"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("not in the log: %s", want)
		}
	}
	allow()
	for _, name := range []string{"extra", "queue"} {
		eventually(t, name+" works", func() bool { return process1(s.Supervisor, name).State == StateRunning })
	}
	if got := peerOf(t, s, "extra"); got != pid(s.Supervisor, "front") {
		t.Errorf("it reaches %d", got)
	}
}

// One that hangs is removed at once.
func TestRemoveWhatHangs(t *testing.T) {
	t.Parallel()
	s := startAround(t, config{}, generation(config{}, config{}), Options{StopTimeout: 10 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	never := filepath.Join(t.TempDir(), "never")
	if err := s.Add(ctx, Spec{Name: "extra", Init: config{Hang: never}}); !errors.Is(err, ErrNotReady) {
		t.Error(err)
	}
	if err := s.Remove("extra"); err != nil {
		t.Error(err)
	}
	if p := process1(s.Supervisor, "extra"); p.Name != "" {
		t.Errorf("left: %+v", p)
	}
}
