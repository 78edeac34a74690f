package privsep

import (
	"fmt"
	"time"
)

// maxLateDoublings bounds how long a start may take at last: 32 times StartTimeout.
const maxLateDoublings = 5

// boundStart kills a life of p that does not get ready: one that hangs is started again
// as one that ends is. The next one has twice the time, since what takes long may be
// work that is needed, such as the check of a large queue. The result ends the wait.
//
// The first start of what cannot do without is launch's business: it is not tried again.
func (s *Supervisor) boundStart(p *process, inst *instance) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.once && !p.added && !p.everReady() {
		return func() {}
	}
	patience := s.opts.StartTimeout << min(p.late, maxLateDoublings)
	t := time.AfterFunc(patience, func() { s.endLate(p, inst, patience) })
	return func() { t.Stop() }
}

func (s *Supervisor) endLate(p *process, inst *instance, patience time.Duration) {
	s.mu.Lock()
	if p.inst != inst || p.state != StateStarting {
		s.mu.Unlock()
		return
	}
	p.late++
	inst.words = fmt.Sprintf("not ready after %v", patience)
	s.mu.Unlock()
	s.opts.Log.Error("process is not ready in time, killing it", "process", p.spec.Name, "after", patience)
	inst.kill()
}
