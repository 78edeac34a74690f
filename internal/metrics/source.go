package metrics

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"tabard/internal/count"
	"tabard/internal/rpc"
	"tabard/lookup"
)

// source is the processes of one name: the one in force, and those of generations
// before it that finish their work.
type source struct {
	name  string
	descs []count.Desc

	asking sync.Mutex // held by ask

	mu   sync.Mutex
	live []*peer     // the newest last
	past [][]float64 // what those that ended have counted; nil: nothing
}

// peer is one process.
type peer struct {
	client *rpc.Client
	last   count.Report // its last answer, as far as it had a sense
}

// reading is what a source has to say.
type reading struct {
	up         bool // the process in force has answered
	goroutines int  // of that one
	heap       uint64
	values     [][]float64     // nil: nothing is known
	figures    *lookup.Figures // of lookup alone; nil: not known
}

func (s *source) attach(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune()
	s.live = append(s.live, &peer{client: rpc.NewClient(conn)})
}

// prune lets go of those that have ended, and keeps what they had counted. The
// caller holds mu.
func (s *source) prune() {
	s.live = slices.DeleteFunc(s.live, func(p *peer) bool {
		select {
		case <-p.client.Done():
			s.past = s.sum(s.past, p.last.Values, false)
			_ = p.client.Close()
			return true
		default:
			return false
		}
	})
}

// ask asks each of them.
func (s *source) ask(ctx context.Context) (reading, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.mu.Lock()
	s.prune()
	peers := slices.Clone(s.live)
	s.mu.Unlock()
	reports, faults := make([]count.Report, len(peers)), make([]error, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() { reports[i], faults[i] = s.read(ctx, p) })
	}
	var figures *lookup.Figures
	var fault error
	if n := len(peers); n > 0 && s.name == procLookup {
		all.Go(func() { figures, fault = readFigures(ctx, peers[n-1]) })
	}
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range peers {
		if faults[i] == nil {
			p.last = reports[i]
		}
	}
	r := reading{values: s.total(peers), figures: figures}
	if len(peers) == 0 {
		return r, fmt.Errorf("%s: %w", s.name, rpc.ErrUnavailable)
	}
	newest := peers[len(peers)-1]
	r.goroutines, r.heap = newest.last.Goroutines, newest.last.Heap
	if fault == nil {
		fault = faults[len(peers)-1]
	}
	r.up = fault == nil
	return r, fault
}

// read asks one process, and believes what can be.
func (s *source) read(ctx context.Context, p *peer) (count.Report, error) {
	r, err := count.Read(ctx, p.client)
	if err == nil {
		err = count.Check(s.descs, r.Values)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", s.name, err)
	}
	r.Goroutines = max(0, r.Goroutines)
	return r, nil
}

func readFigures(ctx context.Context, p *peer) (*lookup.Figures, error) {
	f, err := lookup.NewMeter(p.client).Figures(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", procLookup, err)
	}
	return &f, nil
}

// total is what all have counted together. The caller holds mu.
func (s *source) total(peers []*peer) [][]float64 {
	total := s.sum(nil, s.past, true)
	for _, p := range peers {
		total = s.sum(total, p.last.Values, true)
	}
	return total
}

// sum adds numbers that passed Check, or none; of gauges only if they are of one
// that lives.
func (s *source) sum(to, more [][]float64, alive bool) [][]float64 {
	if more == nil {
		return to
	}
	if to == nil {
		to = make([][]float64, len(s.descs))
		for i := range s.descs {
			to[i] = make([]float64, len(more[i]))
		}
	}
	for i, numbers := range more {
		if s.descs[i].Kind == count.Gauge && !alive {
			continue
		}
		for j, n := range numbers {
			to[i][j] += n
		}
	}
	return to
}
