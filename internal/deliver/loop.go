package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tabard/queue"
)

// errIdle is the cause of a Take that was given up because nothing came.
var errIdle = errors.New("idle")

// run is the main loop with its orderly end: first no more jobs, then the
// running deliveries, then their results.
func (a *agent) run(ctx context.Context) error {
	taking, stopTaking := context.WithCancelCause(ctx)
	defer stopTaking(nil)
	work, cutWork := context.WithCancel(context.WithoutCancel(ctx))
	defer cutWork()
	context.AfterFunc(taking, func() {
		select {
		case <-time.After(a.opt.Grace):
			cutWork()
		case <-work.Done():
		}
	})

	rep := newReporter(a.worker, a.log, a.opt.Parallel, stopTaking)
	busy := newBusy(a.opt.Parallel, a.opt.Idle, func() { stopTaking(errIdle) })
	err := a.takeAll(taking, work, busy, rep)
	stopTaking(err)
	busy.wait()
	if reportErr := rep.close(); reportErr != nil {
		err = reportErr
	}
	return err
}

// takeAll takes jobs as long as ctx lasts and starts a goroutine for each.
func (a *agent) takeAll(ctx, work context.Context, busy *busy, rep *reporter) error {
	for {
		n := busy.acquire(ctx)
		if n == 0 {
			return nil
		}
		jobs, err := a.worker.Take(ctx, n)
		if len(jobs) > n {
			err = errors.Join(err, fmt.Errorf("the queue handed out %d jobs when asked for %d", len(jobs), n))
			rep.results(returned(jobs[n:])...)
			jobs = jobs[:n]
		}
		busy.begin(len(jobs), n)
		for _, job := range jobs {
			go func() {
				defer busy.end()
				a.carryOut(ctx, work, job, rep)
			}()
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("take jobs: %w", err)
		}
	}
}

// carryOut delivers every envelope of a job, and reports each on its own.
func (a *agent) carryOut(taking, work context.Context, job queue.Job, rep *reporter) {
	if taking.Err() != nil {
		rep.results(returned([]queue.Job{job})...)
		return
	}
	for _, env := range job.Envelopes {
		p := newParcel(a.worker, job, env)
		began := time.Now()
		st := a.deliver(work, p)
		a.logResult(p, st)
		r := st.result(env.ID)
		r.Spent.Add(queue.StepTransfer, began)
		rep.results(r)
		a.sweepAfter(p, st)
	}
}

// returned hands jobs back untried.
func returned(jobs []queue.Job) []queue.Result {
	var out []queue.Result
	for _, job := range jobs {
		for _, env := range job.Envelopes {
			out = append(out, queue.Result{ID: env.ID, Outcome: queue.Returned})
		}
	}
	return out
}

// busy counts free slots, and notices when none was used for a while.
type busy struct {
	slots   chan struct{}
	wg      sync.WaitGroup
	idle    time.Duration
	onIdle  func()
	mu      sync.Mutex
	running int
	timer   *time.Timer
}

func newBusy(slots int, idle time.Duration, onIdle func()) *busy {
	b := &busy{slots: make(chan struct{}, slots), idle: idle, onIdle: onIdle}
	for range slots {
		b.slots <- struct{}{}
	}
	b.startTimer()
	return b
}

// acquire waits for a free slot and takes all that are free. It returns 0 when
// ctx ends.
func (b *busy) acquire(ctx context.Context) int {
	select {
	case <-ctx.Done():
		return 0
	case <-b.slots:
	}
	for n := 1; ; n++ {
		select {
		case <-b.slots:
		default:
			return n
		}
	}
}

// begin starts used deliveries and gives the other acquired slots back.
func (b *busy) begin(used, acquired int) {
	b.mu.Lock()
	b.running += used
	if b.running > 0 && b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	b.wg.Add(used)
	for range acquired - used {
		b.slots <- struct{}{}
	}
}

func (b *busy) end() {
	b.mu.Lock()
	if b.running--; b.running == 0 {
		b.startTimer()
	}
	b.mu.Unlock()
	b.slots <- struct{}{}
	b.wg.Done()
}

func (b *busy) startTimer() {
	if b.idle > 0 {
		b.timer = time.AfterFunc(b.idle, b.onIdle)
	}
}

// wait waits until nothing runs any more.
func (b *busy) wait() {
	b.wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
}
