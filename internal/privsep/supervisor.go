package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"tabard/internal/rpc"
)

// Supervisor starts processes, connects them, and starts them again.
type Supervisor struct {
	opts   Options
	exe    string
	coding *rpc.Coding

	halt chan struct{} // closed when stopping begins
	kill chan struct{} // closed when stopping must not take time

	replacing sync.Mutex // held by Replace

	mu       sync.Mutex
	procs    []*process // in the order in which they stop
	edges    []Edge
	gen      int // the generation in force
	lastGen  int
	stopping bool
	killed   bool
}

// New returns a supervisor for processes that stop in the order of specs, and
// start in the reverse order, each when the one after it is ready.
func New(specs []Spec, edges []Edge, opts Options) (*Supervisor, error) {
	opts.defaults()
	coding, err := rpc.NewCoding()
	if err != nil {
		return nil, err
	}
	s := &Supervisor{
		opts: opts, coding: coding,
		halt: make(chan struct{}), kill: make(chan struct{}), gen: 1, lastGen: 1,
	}
	if s.exe, err = executable(); err != nil {
		return nil, err
	}
	// What whoever started us left open must not reach a process.
	if err := keepFromChildren(firstInherited); err != nil {
		return nil, err
	}
	for _, spec := range specs {
		if s.find(spec.Name) != nil {
			return nil, fmt.Errorf("process %s: named twice", spec.Name)
		}
		p := newProcess(spec, false)
		if spec.Replaceable {
			p.gen = s.gen
		}
		s.procs = append(s.procs, p)
	}
	if err := s.checkEdges(edges); err != nil {
		return nil, err
	}
	s.edges = slices.Clone(edges)
	return s, nil
}

// firstInherited is the first descriptor that is none of the standard three.
const firstInherited = 3

// executable returns what to execute for a child. Where the system names the
// running program itself, an upgrade of the file cannot mix two versions.
func executable() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Readlink(self); err == nil {
		return self, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the program: %w", err)
	}
	return exe, nil
}

// Run starts every process, calls Options.Ready, and returns when ctx has ended
// and all have stopped. A process that ends before it is ready for the first
// time, or is not ready in time, stops everything: the error says why.
func (s *Supervisor) Run(ctx context.Context) error {
	err := s.startAll(ctx)
	if err == nil && ctx.Err() == nil {
		if s.opts.Ready != nil {
			s.opts.Ready()
		}
		select {
		case <-ctx.Done():
		case <-s.kill:
		}
	}
	s.stopAll()
	return err
}

// RunUntilSignal is Run until one of the signals arrives; the second one kills
// the processes that are still stopping.
func (s *Supervisor) RunUntilSignal(ctx context.Context, signals ...os.Signal) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, signals...)
	defer signal.Stop(ch)
	go func() {
		for n := 0; ; n++ {
			select {
			case sig := <-ch:
				s.opts.Log.Info("stopping", "signal", sig.String(), "at_once", n > 0)
				if stop(); n > 0 {
					s.Kill()
				}
			case <-s.kill:
				return
			}
		}
	}()
	err := s.Run(ctx)
	s.Kill() // ends the goroutine; no process is left
	return err
}

// Kill ends Run without giving the processes time to stop.
func (s *Supervisor) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.killed {
		s.killed = true
		close(s.kill)
	}
}

// startAll starts the processes one after the other. It returns nil when ctx
// ends meanwhile.
func (s *Supervisor) startAll(ctx context.Context) error {
	for _, p := range slices.Backward(slices.Clone(s.procs)) {
		err := s.launch(ctx, p)
		if errors.Is(err, ErrStopping) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// launch starts p and waits until it is ready.
func (s *Supervisor) launch(ctx context.Context, p *process) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return ErrStopping
	}
	p.launched = true
	s.mu.Unlock()
	go s.supervise(p)
	late := time.NewTimer(s.opts.StartTimeout)
	defer late.Stop()
	select {
	case <-p.ready:
		return nil
	case err := <-p.failed:
		return err
	case <-late.C:
		return fmt.Errorf("%s: not ready after %v", p.spec.Name, s.opts.StartTimeout)
	case <-ctx.Done():
		return ctx.Err()
	case <-s.kill:
		return ErrStopping
	case <-s.halt:
		return ErrStopping
	}
}

// Spawn starts one more process while the supervisor runs, with edges of its
// own. It is not started again when it ends, and stops before the processes
// that its edges lead to.
func (s *Supervisor) Spawn(spec Spec, edges ...Edge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.enlist(newProcess(spec, true), edges)
	if err != nil {
		return err
	}
	p.launched = true
	go s.supervise(p)
	return nil
}

// Add starts one more permanent process while the supervisor runs, and waits until
// it is ready. It is started again when it ends or hangs, also before it was ever ready:
// then the error wraps ErrNotReady. On any other error nothing is left of it but its
// listeners.
func (s *Supervisor) Add(ctx context.Context, spec Spec, edges ...Edge) error {
	s.mu.Lock()
	p := newProcess(spec, false)
	p.added = true
	p, err := s.enlist(p, edges)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.launch(ctx, p); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return nil
}

// Remove stops a permanent process for good, and closes its listeners.
func (s *Supervisor) Remove(name string) error {
	s.mu.Lock()
	p := s.find(name)
	if p == nil || p.gen != 0 {
		s.mu.Unlock()
		return fmt.Errorf("%s: %w", name, ErrNoSuch)
	}
	p.retired = true
	p.removed.note()
	s.mu.Unlock()
	for _, l := range p.spec.Listeners {
		_ = l.File.Close()
	}
	s.stop(p, s.opts.StopTimeout)
	s.disconnect(name)
	return nil
}

// enlist makes p known, with edges of its own. The caller holds mu.
func (s *Supervisor) enlist(p *process, edges []Edge) (*process, error) {
	name := p.spec.Name
	if s.stopping {
		return nil, ErrStopping
	}
	if s.find(name) != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrRunning)
	}
	at := s.position(name, edges)
	s.procs = slices.Insert(s.procs, at, p)
	if err := s.checkEdges(edges); err != nil {
		s.procs = slices.Delete(s.procs, at, at+1)
		return nil, err
	}
	s.edges = append(s.edges, edges...)
	return p, nil
}

// disconnect forgets the edges of a process that is no more.
func (s *Supervisor) disconnect(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edges = slices.DeleteFunc(s.edges, func(e Edge) bool { return e.peer(name) != "" })
}

// position returns where in the order of stopping a process with these edges
// belongs. The caller holds mu.
func (s *Supervisor) position(name string, edges []Edge) int {
	for i, p := range s.procs {
		for _, e := range edges {
			if peer := e.peer(name); peer == p.spec.Name {
				return i
			}
		}
	}
	return len(s.procs)
}

// find returns the process called name, that of the generation in force. The
// caller holds mu.
func (s *Supervisor) find(name string) *process {
	for _, p := range s.procs {
		if p.spec.Name == name && s.current(p) {
			return p
		}
	}
	return nil
}

// forget removes a process that has ended for good. The caller holds mu.
func (s *Supervisor) forget(p *process) {
	s.procs = slices.DeleteFunc(s.procs, func(q *process) bool { return q == p })
	if !p.once {
		return // its edges are its successor's, or disconnect's
	}
	s.edges = slices.DeleteFunc(s.edges, func(e Edge) bool { return e.peer(p.spec.Name) != "" })
}
