package queue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"tabard/internal/rpc"
)

// maxTake bounds the jobs of one Take.
const maxTake = 1000

// RelayWorker attaches a worker that relays. release ends it: what it has not
// reported is due again, and its calls return ErrClosed.
func (q *Queue) RelayWorker() (w Worker, release func()) {
	return q.attach(poolKey{relay: true})
}

// LocalWorker attaches a worker that delivers as uid; see RelayWorker.
func (q *Queue) LocalWorker(uid int) (w Worker, release func()) {
	return q.attach(poolKey{uid: uid})
}

func (q *Queue) attach(key poolKey) (Worker, func()) {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pool(key)
	p.workers++
	close(p.attached)
	p.attached = make(chan struct{})
	w := &poolWorker{
		queue: q, pool: p, released: make(chan struct{}),
		leases: make(map[EnvelopeID]*item), messages: make(map[MessageID]int),
		bodies: make(map[MessageID]*openBody), room: keptColumns,
	}
	return w, sync.OnceFunc(w.release)
}

// poolWorker is one worker's view of the queue.
type poolWorker struct {
	queue    *Queue
	pool     *pool
	released chan struct{}
	leases   map[EnvelopeID]*item // under active.mu
	messages map[MessageID]int    // how many of each; likewise

	mu     sync.Mutex
	bodies map[MessageID]*openBody // of leased messages that are read in pieces
	kept   int64                   // the sum of what they keep,
	room   int64                   // and how much it may be
}

// release gives back what the worker has not reported.
func (w *poolWorker) release() {
	q, a := w.queue, w.queue.active
	a.mu.Lock()
	close(w.released)
	w.pool.workers--
	var died []*item
	for _, it := range w.leases {
		w.unlease(it)
		if it.deaths++; it.deaths%maxDeaths == 0 {
			a.reclaim(it)
			died = append(died, it)
			continue
		}
		q.giveBack(it)
	}
	q.conclude(died, Result{Outcome: Deferred, Enhanced: "4.3.0", Text: "the delivering process ended"})
	q.summon(w.pool)
	a.mu.Unlock()
	q.kick()

	w.mu.Lock()
	defer w.mu.Unlock()
	for id, b := range w.bodies {
		w.close(id, b)
	}
}

// reclaim counts an item among those that no worker has. Needs active.mu.
func (a *active) reclaim(it *item) { it.msg.waiting++ }

// giveBack makes an item due again. Needs active.mu.
func (q *Queue) giveBack(it *item) {
	q.active.reclaim(it)
	it.delivery = nil // looked up anew
	if it.dropped {
		q.active.handed(it.msg)
		q.leave(it)
		return
	}
	q.route(it)
}

// Take implements Worker.
func (w *poolWorker) Take(ctx context.Context, limit int) ([]Job, error) {
	if limit < 1 {
		return nil, fmt.Errorf("%w: take %d jobs", rpc.ErrInvalid, limit)
	}
	for {
		batches, wake, err := w.next(min(limit, maxTake))
		if err != nil {
			return nil, err
		}
		if jobs := w.jobs(batches); len(jobs) > 0 {
			return jobs, nil
		}
		if wake == nil {
			continue
		}
		select {
		case <-wake:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-w.released:
			err = ErrClosed
		case <-w.queue.ctx.Done():
			err = ErrClosed
		}
		w.queue.active.mu.Lock()
		w.pool.unwait(wake)
		w.queue.active.mu.Unlock()
		return nil, err
	}
}

// next leases work, or returns what is closed when there may be some.
func (w *poolWorker) next(limit int) ([][]*item, chan struct{}, error) {
	a := w.queue.active
	a.mu.Lock()
	late := false
	defer func() {
		if a.mu.Unlock(); late {
			w.queue.kick()
		}
	}()
	if w.gone() || w.queue.ctx.Err() != nil {
		return nil, nil, ErrClosed
	}
	beside := 0
	if w.pool.key.relay {
		beside = w.queue.pausedWeight()
	}
	batches, over := a.take(w.pool, limit, beside)
	for _, it := range over {
		w.queue.route(it) // to be reported, or held
	}
	late = len(over) > 0
	now := time.Now()
	for _, batch := range batches {
		for _, it := range batch {
			it.taken = now
			w.lease(it)
		}
	}
	if len(batches) == 0 {
		return nil, w.pool.wait(), nil
	}
	return batches, nil, nil
}

func (w *poolWorker) gone() bool {
	select {
	case <-w.released:
		return true
	default:
		return false
	}
}

// jobs fetches and verifies the bodies of what was leased. What cannot be
// delivered is not handed out.
func (w *poolWorker) jobs(batches [][]*item) []Job {
	a := w.queue.active
	jobs := make([]Job, 0, len(batches))
	var paused []Hold
	if w.pool.key.relay {
		a.mu.Lock()
		paused = w.queue.paused()
		a.mu.Unlock()
	}
	for _, batch := range batches {
		job := Job{Message: batch[0].msg.Message, Envelopes: make([]Envelope, len(batch)), Paused: paused}
		a.mu.Lock()
		job.Body = batch[0].msg.body
		job.Delivery = batch[0].delivery
		job.Urged = batch[0].job != nil && batch[0].job.urged
		for i, it := range batch {
			job.Envelopes[i] = it.env
			a.handed(it.msg)
		}
		a.mu.Unlock()
		if job.Envelopes[0].Relay {
			job.Domain = domainOf(job.Envelopes[0].Address)
		}
		if job.Body == nil {
			if err := w.load(&job, len(batch)); err != nil {
				w.refuse(batch, err)
				continue
			}
		}
		jobs = append(jobs, job)
	}
	return jobs
}
