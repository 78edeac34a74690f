package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"tabard/bench/load"
	"tabard/queue"
)

// Of the mail that waits throughout the crash test: so large, in bytes, that its bodies
// are files, and who sends it.
const (
	lateSize = 160 << 10
	lateFrom = "late@client.example"
)

// keepsWaiting takes mail that waits until released.
func (s *server) keepsWaiting(r *crashRun) {
	s.t.Helper()
	s.withQueue(func(q queue.Admin) error {
		_, err := q.Hold(s.t.Context(), queue.Hold{Kind: queue.HoldSender, Value: lateFrom})
		return err
	})
	var err error
	r.res, err = load.Run(s.t.Context(), load.Options{Addr: s.smtp, Sessions: 5, Messages: 20, Size: lateSize, From: lateFrom, To: r.to, Acked: r.acks.add})
	if err != nil {
		s.t.Fatal(err)
	}
}

// released lets go what waits.
func (s *server) released() {
	s.t.Helper()
	s.withQueue(func(q queue.Admin) error {
		_, err := q.Release(s.t.Context(), queue.HoldSender, lateFrom)
		return err
	})
}

// startRotating has bodies compressed and encrypted, and all of them stored under one
// new key after the other until finish is called: whatever is killed meanwhile, every
// body can be stored under the last key, and the others are forgotten then.
func (s *server) startRotating() (finish func()) {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.config, string(text)+fmt.Sprintf("queue compression\nqueue encryption %q\n", filepath.Join(s.dir, "queue.key")))
	tabard(s.t, "queue", "encrypt", "new-key", "-c", s.config)
	ctx, stop := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	times := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			if s.rotates() {
				times++
			}
		}
	})
	return func() {
		stop()
		wg.Wait()
		if s.t.Logf("%d rotations", times); times == 0 {
			s.t.Error("no key was ever changed")
		}
		eventually(s.t, "all is stored under the last key", func() bool { return s.rotates("--keep-key", "--forget") })
		lines := s.keyLines()
		if s.t.Logf("keys: %v", lines); len(lines) != 2 || lines[""] != "not encrypted 0" {
			s.t.Errorf("keys: %v", lines)
		}
	}
}

// rotates reports whether all bodies were stored anew. It is no fault if the server is
// killed meanwhile, but one if a body could not be read.
func (s *server) rotates(args ...string) bool {
	cmd := program(append([]string{"queue", "encrypt", "rotate", "--all", "-c", s.config}, args...)...)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "are left as they were") {
		s.t.Errorf("rotate: %s", out)
	}
	return err == nil
}
