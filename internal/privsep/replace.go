package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Change is news for a permanent process, see Child.OnUpdate.
type Change struct {
	Process string
	Init    any // what its later lives begin with
	Update  any // what its present one is told
}

// Replace starts the processes of specs beside those of the same names, all
// that are Replaceable, and puts them in their place when every one is ready:
// the next generation. Then the permanent processes are told what has changed,
// and when they know, each of the new ones is made active in turn, those that
// others ask first. So whatever takes work finds the rules that it goes by in
// force everywhere.
//
// The ones replaced retire: they finish their work, each as long as a process of
// their generation may still ask it; listeners that only they have are closed.
// When Replace returns, none of them takes new work. Edges connect processes of
// one generation, and permanent processes with the one in force. On an error the
// generation in force stays.
func (s *Supervisor) Replace(ctx context.Context, specs []Spec, changes ...Change) error {
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
	s.closeUnwanted(old, fresh)
	s.handOver(ctx, old, fresh, changes)
	s.boundRetired()
	return nil
}

// handOver gives the work of one generation to the next.
func (s *Supervisor) handOver(ctx context.Context, old, fresh []*process, changes []Change) {
	for _, c := range changes {
		if err := s.Update(ctx, c.Process, c.Init, c.Update); err != nil {
			s.opts.Log.Warn("process does not confirm the new configuration", "process", c.Process, "error", err)
		}
	}
	for _, p := range slices.Backward(fresh) {
		s.mu.Lock()
		s.activate(p)
		s.mu.Unlock()
		for _, q := range old {
			if q.spec.Name == p.spec.Name {
				s.relieve(ctx, q, old)
			}
		}
	}
}

// relieve lets p retire, and waits until it takes no new work. One that others
// ask is not waited for: it goes on until they have ended.
func (s *Supervisor) relieve(ctx context.Context, p *process, generation []*process) {
	if slices.ContainsFunc(generation, func(q *process) bool { return s.asks(q, p) }) {
		go s.retire(p, generation)
		return
	}
	inst := s.retire(p, generation)
	if inst == nil {
		return
	}
	if err := s.await(ctx, inst.rested, inst); err != nil {
		s.opts.Log.Warn("old process does not confirm that it takes no new work", "process", p.spec.Name, "error", err)
	}
}

// await waits for what an instance is to do, its end included.
func (s *Supervisor) await(ctx context.Context, e *event, inst *instance) error {
	late := time.NewTimer(s.opts.SwitchTimeout)
	defer late.Stop()
	select {
	case <-e.happened:
	case <-inst.ended:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.halt:
		return ErrStopping
	case <-late.C:
		return fmt.Errorf("no answer within %v", s.opts.SwitchTimeout)
	}
	return nil
}

// closeUnwanted closes the listeners that old has and fresh has not. A process
// of old, which is not started again, still has its own copies.
func (s *Supervisor) closeUnwanted(old, fresh []*process) {
	wanted := map[*os.File]bool{}
	for _, p := range fresh {
		for _, l := range p.spec.Listeners {
			wanted[l.File] = true
		}
	}
	for _, p := range old {
		for _, l := range p.spec.Listeners {
			if !wanted[l.File] {
				_ = l.File.Close()
			}
		}
	}
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
		p.gen, p.active = s.lastGen, false
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
// It returns who was told so, nil when p does not run.
func (s *Supervisor) retire(p *process, generation []*process) *instance {
	for _, q := range generation {
		if !s.asks(q, p) {
			continue
		}
		select {
		case <-q.done:
		case <-s.halt:
			return nil
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
	return inst
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
// sends update to the present one, if it has any: see Child.OnUpdate. It waits
// until that is in force.
func (s *Supervisor) Update(ctx context.Context, name string, init, update any) error {
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
	p.update = down{Kind: downUpdate, ID: p.update.ID + 1, Data: data}
	inst, m, done := p.inst, p.update, newEvent()
	if inst != nil {
		inst.updated[m.ID] = done
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(inst.updated, m.ID)
		}()
	}
	s.mu.Unlock()
	if inst == nil {
		return nil
	}
	if err := inst.give(m, nil); err != nil {
		return errors.Join(fmt.Errorf("%s: it is started again", name), err)
	}
	return s.await(ctx, done, inst)
}
