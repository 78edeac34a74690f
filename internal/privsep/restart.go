package privsep

import (
	"fmt"
	"time"
)

// ended decides what follows the end of a life of p: another one after delay,
// or none.
func (s *Supervisor) ended(p *process, err error) (delay time.Duration, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ran := time.Since(p.since)
	p.since, p.lastExit = time.Now(), err.Error()
	if s.stopping {
		p.state = StateStopped
		s.logStopped(p, err)
		return 0, false
	}
	if p.once || p.retired {
		s.logStopped(p, err)
		s.forget(p)
		return 0, false
	}
	if !p.everReady() {
		select {
		case p.failed <- fmt.Errorf("%s: %w", p.spec.Name, err):
		default: // of one that is tried again
		}
		if !p.added {
			p.state = StateStopped
			return 0, false
		}
	}
	if ran >= s.opts.Backoff.Healthy {
		p.failures = 0
	}
	p.failures++
	p.restarts++
	p.state = StateBackoff
	delay = s.opts.Backoff.delay(p.failures)
	s.opts.Log.Error("process ended, starting it again", "process", p.spec.Name, "reason", p.lastExit, "ran", ran.Round(time.Millisecond), "delay", delay, "restarts", p.restarts)
	return delay, true
}

// logStopped tells of an end that has no restart.
func (s *Supervisor) logStopped(p *process, err error) {
	if err == errEnded {
		s.opts.Log.Debug("process stopped", "process", p.spec.Name)
		return
	}
	s.opts.Log.Warn("process ended", "process", p.spec.Name, "reason", err.Error())
}
