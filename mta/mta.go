// Package mta sends mail out: it takes jobs from the queue, asks lookup how each
// is to be delivered now, and delivers over SMTP or LMTP sessions that are
// shared by messages of the same destination.
//
// What a relay URL's scheme promises is decided in one place (type policy). A
// delivery is at least once: when a connection is lost between the final dot
// and its reply, the message is sent again. A message with 8-bit content goes
// unchanged also to a server that does not offer 8BITMIME, as is the custom;
// only SMTPUTF8 is a reason to bounce (RFC 6531).
package mta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"tabard/lookup"
	"tabard/queue"
)

// MTA delivers outbound mail. It is made by New and runs once.
type MTA struct {
	cfg       Config
	lookup    lookup.Outbound
	queue     queue.Worker
	lanes     *lanes
	holds     atomic.Pointer[[]queue.Hold] // on routes, as of the last jobs
	conns     *limiter                     // connections
	idle      *idlers
	penalties *penalties
	families  *families
	signed    *otter.Cache[string, *signed] // by message and keys
	work      context.Context               // ends when no more jobs are taken
	count     *counts
	rest      context.CancelFunc
	rested    chan struct{}   // closed when none are
	hard      context.Context // ends when running transactions must
}

// New returns an MTA that takes its work from w. It does nothing before Run.
func New(cfg Config, l lookup.Outbound, w queue.Worker) *MTA {
	cfg = cfg.withDefaults()
	m := &MTA{
		cfg: cfg, lookup: l, queue: w,
		lanes:     newLanes(),
		conns:     newLimiter(cfg.Limits.InFlight),
		idle:      newIdlers(cfg.Limits.InFlight),
		penalties: newPenalties(time.Now),
		families:  &families{now: time.Now},
		signed:    otter.Must(&otter.Options[string, *signed]{MaximumSize: maxSigned}),
		count:     newCounts(),
		hard:      context.Background(),
	}
	m.work, m.rest = context.WithCancel(context.Background())
	m.rested = make(chan struct{})
	return m
}

// Retire makes Run, which must be running, take no more jobs, hand back those
// that wait, and return when running transactions have finished, however long
// they take. Retire itself returns when no more jobs are taken, or ctx ends.
func (m *MTA) Retire(ctx context.Context) {
	m.rest()
	select {
	case <-m.rested:
	case <-ctx.Done():
	}
}

// Run delivers until ctx ends. Then it takes no more jobs, hands back those that
// wait, lets running transactions finish for at most Config.StopTimeout, and
// closes all sessions. It returns an error only when it cannot begin.
func (m *MTA) Run(ctx context.Context) error {
	if m.cfg.Resolver == nil || m.cfg.Hostname == "" {
		return errors.New("mta: no resolver or no host name configured")
	}
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	m.hard = hard
	var jobs sync.WaitGroup
	defer context.AfterFunc(ctx, m.rest)()
	m.take(m.work, &jobs)
	close(m.rested)
	patience := context.AfterFunc(ctx, func() {
		pause(m.hard, m.cfg.StopTimeout)
		cut()
	})
	defer patience()
	jobs.Wait()
	m.idle.close()
	return nil
}

// take gives every job a goroutine, as many as may be in flight.
func (m *MTA) take(ctx context.Context, jobs *sync.WaitGroup) {
	free := make(chan struct{}, m.cfg.Limits.InFlight)
	next := make(chan *queue.Job) // for goroutines that are done with theirs
	for range m.cfg.Limits.InFlight {
		free <- struct{}{}
	}
	for {
		select {
		case <-free:
			free <- struct{}{} // somebody's place; we only look
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		batch, err := m.queue.Take(ctx, len(free))
		if ctx.Err() != nil && len(batch) == 0 {
			return
		}
		if err != nil {
			m.cfg.Logger.Warn("mta cannot take jobs from the queue", "error", err.Error())
			pause(ctx, time.Second)
			continue
		}
		if len(batch) > 0 {
			holds := batch[len(batch)-1].Paused // the same in all of them
			m.holds.Store(&holds)
		}
		for i := range batch {
			<-free
			select {
			case next <- &batch[i]:
			default:
				jobs.Go(func() { m.carry(ctx, &batch[i], next, free) })
			}
		}
	}
}

// idleWork is how long a goroutine without a job waits for another.
const idleWork = 5 * time.Second

// carry processes a job, and the next ones that come soon: a new goroutine for each
// would grow a new stack for each, which costs a tenth of a delivery.
func (m *MTA) carry(ctx context.Context, job *queue.Job, next <-chan *queue.Job, free chan<- struct{}) {
	idle := time.NewTimer(idleWork)
	defer idle.Stop()
	for {
		results := m.process(ctx, job)
		m.count.attempted(results)
		m.report(results)
		free <- struct{}{}
		idle.Reset(idleWork)
		select {
		case job = <-next:
		case <-idle.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Reporting a result is tried a few times: if it fails for good, the lease ends
// and the message is sent again.
const (
	reportTries   = 5
	reportTimeout = 30 * time.Second
)

func (m *MTA) report(results []queue.Result) {
	var err error
	for try := range reportTries {
		if err = m.reportOnce(results); err == nil {
			return
		}
		pause(m.hard, time.Duration(1<<try)*100*time.Millisecond)
	}
	m.cfg.Logger.Error("mta cannot report results to the queue", "results", len(results), "error", err.Error())
}

func (m *MTA) reportOnce(results []queue.Result) error {
	// Also results that come while stopping are reported.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.hard), reportTimeout)
	defer cancel()
	if err := m.queue.Done(ctx, results); err != nil {
		return fmt.Errorf("report %d results: %w", len(results), err)
	}
	return nil
}
