package privsep

import (
	"errors"
	"fmt"
	"os"

	"tabard/internal/privsep/fdpass"
)

// peer returns the other end of an edge, or "" when name is not one of them.
func (e Edge) peer(name string) string {
	switch name {
	case e.From:
		return e.To
	case e.To:
		return e.From
	}
	return ""
}

// checkEdges reports an edge to a process that is not there. The caller holds
// mu or is alone.
func (s *Supervisor) checkEdges(edges []Edge) error {
	for _, e := range edges {
		for _, end := range []string{e.From, e.To} {
			if s.find(end) == nil {
				return fmt.Errorf("edge %s from %s to %s: %s: %w", e.Name, e.From, e.To, end, ErrNoSuch)
			}
		}
		if e.From == e.To {
			return fmt.Errorf("edge %s from %s to itself", e.Name, e.From)
		}
	}
	return nil
}

// connectAll makes every edge of p whose other end runs. The caller holds mu.
func (s *Supervisor) connectAll(p *process) {
	for _, e := range s.edges {
		peer := e.peer(p.spec.Name)
		for _, q := range s.procs {
			switch {
			case q.spec.Name != peer:
			case e.From == peer:
				s.join(e, q, p)
			default:
				s.join(e, p, q)
			}
		}
	}
}

// join makes an edge if both ends run and belong together. The caller holds mu.
func (s *Supervisor) join(e Edge, from, to *process) {
	if from.inst == nil || to.inst == nil || !s.together(from, to) {
		return
	}
	if err := connect(e, from.inst, to.inst); err != nil {
		s.opts.Log.Error("cannot connect processes", "edge", e.Name, "from", e.From, "to", e.To, "error", err)
	}
}

// connect gives each end its socket. An end that cannot take it is hung or has
// ended: it is killed, and its next life gets new edges.
func connect(e Edge, from, to *instance) error {
	a, b, err := fdpass.Pair()
	if err != nil {
		return err
	}
	defer a.Close()
	defer b.Close()
	return errors.Join(
		from.give(down{Kind: downEdge, Name: e.Name, Peer: e.To, Client: true}, a),
		to.give(down{Kind: downEdge, Name: e.Name, Peer: e.From}, b),
	)
}

// give sends a message with a socket, and kills a child that does not take it.
func (i *instance) give(m down, f *os.File) error {
	err := i.conn.Send(m, f)
	if err != nil {
		i.kill()
	}
	return err
}

// Connect makes an edge called edge between the running process called name,
// which answers, and the caller, who gets the other end.
func (s *Supervisor) Connect(name, edge string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(name)
	if p == nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNoSuch)
	}
	if p.inst == nil {
		return nil, fmt.Errorf("%s: not running at the moment", name)
	}
	a, b, err := fdpass.Pair()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	if err := p.inst.give(down{Kind: downEdge, Name: edge}, a); err != nil {
		b.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}
