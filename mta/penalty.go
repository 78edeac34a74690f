package mta

import (
	"sync"
	"time"
)

// The growth of a penalty: the square of the faults in a row times penaltyUnit,
// up to penaltyMax. What was not heard of for penaltyForget is forgotten.
const (
	penaltyUnit    = 15 * time.Second
	penaltyMax     = time.Hour
	penaltyForget  = 4 * time.Hour
	penaltyEntries = 20000
)

// penalties remembers places that failed, so that the backlog does not run
// against them. When a penalty is over, one attempt is let through; the others
// wait for what it finds.
type penalties struct {
	now func() time.Time
	mu  sync.Mutex
	at  map[string]*penalty
}

type penalty struct {
	faults  int
	until   time.Time
	probing bool
	why     string
	seen    time.Time
}

func newPenalties(now func() time.Time) *penalties {
	return &penalties{now: now, at: make(map[string]*penalty)}
}

// enter asks whether a place may be tried. If not, it returns until when, and
// why. If so, good or bad must follow, or leave when neither can be said. An urged
// attempt does not wait for the end of a penalty; its fault does not raise it.
func (p *penalties) enter(place string, urged bool) (until time.Time, why string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.at[place]
	now := p.now()
	switch {
	case e == nil:
		return time.Time{}, "", true
	case now.Before(e.until) && !urged:
		return e.until, e.why, false
	case e.probing:
		return now.Add(penaltyUnit), e.why, false
	}
	e.probing = true
	return time.Time{}, "", true
}

// good forgets a place's faults.
func (p *penalties) good(place string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.at, place)
}

// leave ends an attempt that found nothing out.
func (p *penalties) leave(place string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.at[place]; e != nil {
		e.probing = false
	}
}

// bad adds a fault and returns until when the place is not tried. Faults of
// attempts that ran at the same time count once.
func (p *penalties) bad(place, why string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	e := p.at[place]
	if e == nil {
		p.makeRoom(now)
		e = &penalty{}
		p.at[place] = e
	}
	e.probing, e.why, e.seen = false, why, now
	if now.Before(e.until) {
		return e.until
	}
	e.faults++
	wait := penaltyMax
	if e.faults < 16 { // 16^2 * 15 s is over an hour
		wait = time.Duration(e.faults*e.faults) * penaltyUnit
	}
	e.until = now.Add(wait)
	return e.until
}

// makeRoom keeps the memory bounded. The caller holds the lock.
func (p *penalties) makeRoom(now time.Time) {
	if len(p.at) < penaltyEntries {
		return
	}
	for place, e := range p.at {
		if now.Sub(e.seen) > penaltyForget {
			delete(p.at, place)
		}
	}
	for place := range p.at {
		if len(p.at) < penaltyEntries {
			return
		}
		delete(p.at, place)
	}
}
