package privsep

import (
	"slices"
	"time"
)

// killWait bounds the wait for a process that was sent SIGKILL: one that the
// kernel cannot end must not keep the supervisor.
const killWait = 5 * time.Second

// stopAll stops the processes one after the other. Each may take half of the
// time that is left, so that one that hangs leaves some to the others.
func (s *Supervisor) stopAll() {
	s.mu.Lock()
	s.stopping = true
	close(s.halt)
	procs := slices.Clone(s.procs)
	s.mu.Unlock()

	s.closeListeners(procs)
	end := time.Now().Add(s.opts.StopTimeout)
	for i, p := range procs {
		share := time.Until(end)
		if i < len(procs)-1 {
			share /= 2
		}
		s.askAll(procs[i:], p.spec.Name) // those of several generations stop side by side
		s.stop(p, share)
	}
}

// closeListeners lets clients that come while we stop find nobody, rather than
// a socket that nobody accepts on.
func (s *Supervisor) closeListeners(procs []*process) {
	for _, p := range procs {
		for _, l := range p.spec.Listeners {
			l.File.Close()
		}
	}
}

// stop asks p to stop, and kills it after patience or when Kill is called.
func (s *Supervisor) stop(p *process, patience time.Duration) {
	if !s.ask(p) {
		return
	}
	timer := time.NewTimer(max(patience, 0))
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-s.kill:
	case <-timer.C:
		s.opts.Log.Error("process did not stop in time, killing it", "process", p.spec.Name)
	}
	s.mu.Lock()
	inst := p.inst
	s.mu.Unlock()
	if inst != nil {
		inst.kill()
	}
	select {
	case <-p.done:
	case <-time.After(killWait):
		s.opts.Log.Error("process cannot be killed", "process", p.spec.Name)
	}
}

// askAll asks every process called name.
func (s *Supervisor) askAll(procs []*process, name string) {
	for _, p := range procs {
		if p.spec.Name == name {
			s.ask(p)
		}
	}
}

// ask sends the request to stop. It reports false if p was never launched.
func (s *Supervisor) ask(p *process) bool {
	s.mu.Lock()
	inst, launched := p.inst, p.launched
	if inst != nil {
		p.state = StateStopping
	}
	s.mu.Unlock()
	if inst != nil {
		// Sent outside of the lock; a child that takes nothing is killed later.
		_ = inst.conn.Send(down{Kind: downStop}, nil)
	}
	return launched
}
