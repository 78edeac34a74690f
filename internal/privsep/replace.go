package privsep

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Replace starts the processes of specs beside those of the same names, all
// that are Replaceable, and puts them in their place when every one is ready:
// the next generation. The ones replaced retire: they finish their work, each as
// long as a process of their generation may still ask it. Edges connect
// processes of one generation, and permanent processes with the one in force.
// On an error the generation in force stays.
func (s *Supervisor) Replace(ctx context.Context, specs []Spec) error {
	s.replacing.Lock()
	defer s.replacing.Unlock()
	fresh, err := s.candidates(specs)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(fresh) {
		if err := s.launch(ctx, p); err != nil {
			s.abandon(fresh)
			return err
		}
	}
	old, err := s.promote(fresh)
	if err != nil {
		return err
	}
	for _, p := range old {
		go s.retire(p, old)
	}
	s.boundRetired()
	return nil
}

// candidates makes the processes of the next generation, each before the one
// that it is to replace in the order of stopping.
func (s *Supervisor) candidates(specs []Spec) ([]*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, ErrStopping
	}
	var places []*process
	for _, spec := range specs {
		old := s.find(spec.Name)
		if old == nil || old.gen == 0 || slices.Contains(places, old) {
			return nil, fmt.Errorf("process %s cannot be replaced", spec.Name)
		}
		places = append(places, old)
	}
	for _, p := range s.procs {
		if p.gen == s.gen && !slices.Contains(places, p) {
			return nil, fmt.Errorf("process %s is to be replaced too", p.spec.Name)
		}
	}
	s.lastGen++
	var fresh []*process
	for i, spec := range specs {
		p := newProcess(spec, false)
		p.gen = s.lastGen
		s.procs = slices.Insert(s.procs, slices.Index(s.procs, places[i]), p)
		fresh = append(fresh, p)
	}
	return fresh, nil
}

// abandon takes back a generation that could not be started.
func (s *Supervisor) abandon(fresh []*process) {
	s.mu.Lock()
	for _, p := range fresh {
		p.retired = true
		if p.state == StateStopped || !p.launched {
			s.forget(p)
		}
	}
	s.mu.Unlock()
	go s.stopInTurn(fresh)
}

// promote puts a generation in force, and returns the one before.
func (s *Supervisor) promote(fresh []*process) ([]*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return nil, ErrStopping // what stops everything stops these too
	}
	var old []*process
	for _, p := range s.procs {
		if p.gen == s.gen {
			p.retired = true
			old = append(old, p)
		}
	}
	s.gen = fresh[0].gen
	for _, p := range fresh {
		for _, e := range s.edges {
			for _, q := range s.procs {
				if e.To == p.spec.Name && e.From == q.spec.Name && q.gen == 0 {
					s.join(e, q, p)
				}
			}
		}
	}
	return old, nil
}

// retire lets p finish its work once none of its generation can ask it any more.
func (s *Supervisor) retire(p *process, generation []*process) {
	for _, q := range generation {
		if !s.asks(q, p) {
			continue
		}
		select {
		case <-q.done:
		case <-s.halt:
			return
		}
	}
	s.mu.Lock()
	inst := p.inst
	if inst != nil && p.state != StateStopping {
		p.state = StateRetiring
	}
	s.mu.Unlock()
	if inst != nil {
		_ = inst.conn.Send(down{Kind: downRetire}, nil) // one that takes nothing has ended
	}
}

func (s *Supervisor) asks(from, to *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.edges, func(e Edge) bool {
		return e.From == from.spec.Name && e.To == to.spec.Name
	})
}

// boundRetired stops the oldest retired generations if there are too many.
func (s *Supervisor) boundRetired() {
	s.mu.Lock()
	defer s.mu.Unlock()
	byGen := map[int][]*process{}
	var gens []int
	for _, p := range s.procs {
		if !p.retired || p.state == StateStopping {
			continue
		}
		if byGen[p.gen] == nil {
			gens = append(gens, p.gen)
		}
		byGen[p.gen] = append(byGen[p.gen], p)
	}
	slices.Sort(gens)
	for len(gens) > s.opts.MaxRetired {
		s.opts.Log.Warn("too many generations of processes finish their work, stopping the oldest", "generation", gens[0])
		go s.stopInTurn(byGen[gens[0]])
		gens = gens[1:]
	}
}

// stopInTurn stops processes of one generation, in their order.
func (s *Supervisor) stopInTurn(procs []*process) {
	for _, p := range procs {
		s.stop(p, s.opts.StopTimeout)
	}
}

// isRetired reports whether p, which waits for its next life, must not have
// one, and forgets it then.
func (s *Supervisor) isRetired(p *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.retired {
		p.state = StateStopped
		s.forget(p)
	}
	return p.retired
}

// current reports whether p is the one that goes by its name. The caller holds mu.
func (s *Supervisor) current(p *process) bool { return p.gen == 0 || p.gen == s.gen }

// together reports whether from may ask to: processes of one generation, and
// all others but for generations that are not in force. The caller holds mu.
func (s *Supervisor) together(from, to *process) bool {
	switch {
	case from.gen != 0 && to.gen != 0:
		return from.gen == to.gen
	case to.gen != 0:
		return to.gen == s.gen
	}
	return true
}

// title names a process in the status, apart from its successor.
func (p *process) title() string {
	if p.retired {
		return fmt.Sprintf("%s (old %d)", p.spec.Name, p.gen)
	}
	return p.spec.Name
}

// Update makes init what later lives of the process called name begin with, and
// sends update to the present one, if it has any: see Child.OnUpdate.
func (s *Supervisor) Update(name string, init, update any) error {
	data, err := s.coding.Marshal(update)
	if err != nil {
		return err
	}
	s.mu.Lock()
	p := s.find(name)
	if p == nil {
		s.mu.Unlock()
		return fmt.Errorf("%s: %w", name, ErrNoSuch)
	}
	p.spec.Init = init
	inst := p.inst
	s.mu.Unlock()
	if inst == nil {
		return nil
	}
	if err := inst.give(down{Kind: downUpdate, Data: data}, nil); err != nil {
		return errors.Join(fmt.Errorf("%s: it is started again", name), err)
	}
	return nil
}
