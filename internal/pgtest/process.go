package pgtest

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Stop shuts the server down as an administrator does: connections are ended,
// what was committed is kept.
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

// quit ends the server without any care for what it holds, paused or not.
func (s *Server) quit() error {
	if s.proc == nil {
		return nil
	}
	return errors.Join(s.Resume(), s.end(syscall.SIGQUIT))
}

func (s *Server) end(sig syscall.Signal) error {
	if s.proc == nil {
		return nil
	}
	if !s.proc.End(sig, stopTimeout) {
		return errors.Join(errors.New("the server does not stop"), s.Kill())
	}
	s.proc = nil
	return nil
}

// Kill ends the server and all of its processes at once, as a crash does.
func (s *Server) Kill() error {
	if s.proc == nil {
		return nil
	}
	family, err := s.signal(syscall.SIGKILL)
	<-s.proc.Ended
	s.proc = nil
	// Another one refuses to start while any of them holds the shared memory.
	for until := time.Now().Add(stopTimeout); err == nil && anyAlive(family); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			return fmt.Errorf("processes of the server are left: %v", family)
		}
	}
	return err
}

// Pause stops every process of the server where it is (SIGSTOP): connections
// stay open and nothing answers.
func (s *Server) Pause() error {
	_, err := s.signal(syscall.SIGSTOP)
	return err
}

// Resume lets a paused server go on.
func (s *Server) Resume() error {
	_, err := s.signal(syscall.SIGCONT)
	return err
}

// signal sends a signal to all processes of the server and returns who they are.
// They are sessions of their own, so that no group has them all. The postmaster
// holds still meanwhile, and so makes no more of them.
func (s *Server) signal(sig syscall.Signal) ([]int, error) {
	if s.proc == nil {
		return nil, errors.New("the server does not run")
	}
	_ = syscall.Kill(s.proc.Pid, syscall.SIGSTOP) // it may have ended by itself
	all, err := processes()
	if err != nil {
		return nil, err
	}
	family := []int{s.proc.Pid}
	for _, p := range all {
		if p.parent == s.proc.Pid {
			family = append(family, p.pid)
			_ = syscall.Kill(p.pid, sig)
		}
	}
	_ = syscall.Kill(s.proc.Pid, sig)
	return family, nil
}

type entry struct {
	pid, parent int
	state       string
}

// processes lists what runs, without what has ended and waits for its parent.
func processes() ([]entry, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,stat=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	var all []entry
	for line := range strings.Lines(string(out)) {
		var e entry
		if _, err := fmt.Sscan(line, &e.pid, &e.parent, &e.state); err != nil {
			return nil, fmt.Errorf("ps says %q: %w", line, err)
		}
		if !strings.HasPrefix(e.state, "Z") {
			all = append(all, e)
		}
	}
	return all, nil
}

func anyAlive(pids []int) bool {
	all, err := processes()
	if err != nil {
		return true
	}
	for _, e := range all {
		for _, pid := range pids {
			if e.pid == pid {
				return true
			}
		}
	}
	return false
}
