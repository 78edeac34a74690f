package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tabard/internal/rpc"
)

// returnPause is how long an envelope rests that a worker gave back twice.
const returnPause = time.Second

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
		leases: make(map[EnvelopeID]*item),
		bodies: make(map[MessageID]*openBody),
	}
	return w, sync.OnceFunc(w.release)
}

// poolWorker is one worker's view of the queue.
type poolWorker struct {
	queue    *Queue
	pool     *pool
	released chan struct{}
	leases   map[EnvelopeID]*item // under active.mu

	mu     sync.Mutex
	bodies map[MessageID]*openBody // of leased messages
}

// openBody is a verified body that a worker may read.
type openBody struct {
	body Body
	refs int // leases
}

// release gives back what the worker has not reported.
func (w *poolWorker) release() {
	q, a := w.queue, w.queue.active
	a.mu.Lock()
	close(w.released)
	w.pool.workers--
	var died []*item
	for id, it := range w.leases {
		delete(w.leases, id)
		a.unlease(it)
		if it.returns++; it.returns%maxReturns == 0 {
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
		delete(w.bodies, id)
		b.body.Close()
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
	defer a.mu.Unlock()
	if w.gone() || w.queue.ctx.Err() != nil {
		return nil, nil, ErrClosed
	}
	batches := a.take(w.pool, limit)
	for _, batch := range batches {
		for _, it := range batch {
			w.leases[it.env.ID] = it
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
	for _, batch := range batches {
		job := Job{Message: batch[0].msg.Message, Envelopes: make([]Envelope, len(batch))}
		a.mu.Lock()
		job.Body = batch[0].msg.body
		job.Delivery = batch[0].delivery
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

// load reads a small body, and opens a large one.
func (w *poolWorker) load(job *Job, envelopes int) error {
	id := job.Message.ID
	w.mu.Lock()
	b := w.bodies[id]
	if b != nil {
		b.refs += envelopes
	}
	w.mu.Unlock()
	if b != nil {
		return nil
	}
	body, err := w.queue.store.Body(context.Background(), id)
	if err != nil {
		return err
	}
	if body.Size() <= InlineBody {
		defer body.Close()
		job.Body = make([]byte, body.Size())
		_, err := body.ReadAt(job.Body, 0)
		if err != nil && len(job.Body) > 0 {
			return fmt.Errorf("body of %s: %w", id, err)
		}
		return nil
	}
	w.keep(id, body, envelopes)
	return nil
}

// keep holds a body open for as long as envelopes of its message are leased.
func (w *poolWorker) keep(id MessageID, body Body, envelopes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.bodies[id]; b != nil || w.gone() {
		body.Close()
		if b != nil {
			b.refs += envelopes
		}
		return
	}
	w.bodies[id] = &openBody{body: body, refs: envelopes}
}

// done lets go of a body for one envelope.
func (w *poolWorker) done(id MessageID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.bodies[id]
	if b == nil {
		return
	}
	if b.refs--; b.refs <= 0 {
		delete(w.bodies, id)
		b.body.Close()
	}
}

// refuse takes back leased items whose body cannot be had.
func (w *poolWorker) refuse(batch []*item, err error) {
	q, a := w.queue, w.queue.active
	id := batch[0].msg.ID
	a.mu.Lock()
	defer a.mu.Unlock()
	var mine []*item
	for _, it := range batch {
		if w.leases[it.env.ID] != it {
			continue // released meanwhile
		}
		delete(w.leases, it.env.ID)
		a.unlease(it)
		a.reclaim(it)
		mine = append(mine, it)
	}
	switch {
	case errors.Is(err, rpc.ErrNotFound):
		for _, it := range mine { // removed by hand
			a.handed(it.msg)
			q.leave(it)
		}
	case errors.Is(err, ErrCorrupt):
		q.log.Error("message body is damaged: held", "message", id.String(), "error", err)
		q.hold(mine, err)
	default:
		q.log.Error("message body not read", "message", id.String(), "error", err)
		q.conclude(mine, Result{Outcome: Deferred, Enhanced: "4.3.0", Text: "queue: " + err.Error()})
	}
}

// Body implements Worker. Only bodies of messages that the worker has are
// given.
func (w *poolWorker) Body(ctx context.Context, id MessageID, offset int64, limit int) ([]byte, error) {
	if offset < 0 || limit < 1 {
		return nil, fmt.Errorf("%w: body from %d, %d bytes", rpc.ErrInvalid, offset, limit)
	}
	w.mu.Lock()
	b := w.bodies[id]
	if b != nil {
		b.refs++
	}
	w.mu.Unlock()
	if b == nil { // small: rarely asked for, as it came with the job
		if !w.has(id) {
			return nil, fmt.Errorf("body of %s: %w", id, rpc.ErrNotFound)
		}
		body, err := w.queue.store.Body(ctx, id)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		return readChunk(body, offset, limit)
	}
	defer w.done(id)
	return readChunk(b.body, offset, limit)
}

func readChunk(b Body, offset int64, limit int) ([]byte, error) {
	n := min(int64(limit), InlineBody, b.Size()-offset)
	if n <= 0 {
		return nil, nil
	}
	p := make([]byte, n)
	if got, err := b.ReadAt(p, offset); got < len(p) {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return p, nil
}

func (w *poolWorker) has(id MessageID) bool {
	a := w.queue.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, it := range w.leases {
		if it.msg.ID == id {
			return true
		}
	}
	return false
}

// Done implements Worker. An error other than rpc.ErrInvalid means that the
// results are not durable yet; the queue goes on trying to store them by itself.
func (w *poolWorker) Done(ctx context.Context, results []Result) error {
	items, err := w.surrender(results)
	if err != nil {
		return err
	}
	for _, it := range items {
		w.done(it.msg.ID)
	}
	q, a := w.queue, w.queue.active
	a.mu.Lock()
	var known []*item
	var told []Result
	for i, it := range items {
		if results[i].Outcome == Returned {
			q.returned(it)
			continue
		}
		known = append(known, it)
		told = append(told, results[i])
	}
	if len(known) == 0 {
		a.mu.Unlock()
		q.kick()
		return nil
	}
	s := q.settlement(known, told)
	s.told = true
	a.mu.Unlock()
	return q.settle(ctx, s)
}

// surrender checks that all results are about leases of this worker, and ends
// those.
func (w *poolWorker) surrender(results []Result) ([]*item, error) {
	a := w.queue.active
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.gone() {
		return nil, ErrClosed
	}
	seen := make(map[EnvelopeID]bool, len(results))
	for _, r := range results {
		if w.leases[r.ID] == nil || seen[r.ID] {
			return nil, fmt.Errorf("%w: result for %s, which this worker does not have", rpc.ErrInvalid, r.ID)
		}
		if r.Outcome < Delivered || r.Outcome > Returned {
			return nil, fmt.Errorf("%w: outcome %d", rpc.ErrInvalid, r.Outcome)
		}
		seen[r.ID] = true
	}
	items := make([]*item, len(results))
	for i, r := range results {
		items[i] = w.leases[r.ID]
		delete(w.leases, r.ID)
		a.unlease(items[i])
	}
	return items, nil
}

// returned makes an item due at once, or, when it came back before, soon: a
// worker that is busy must not be asked without end. Needs active.mu.
func (q *Queue) returned(it *item) {
	if it.returns++; it.returns == 1 {
		q.giveBack(it)
		return
	}
	q.goWhile(func() {
		if !sleep(q.ctx, returnPause) {
			return
		}
		q.active.mu.Lock()
		q.giveBack(it)
		q.active.mu.Unlock()
		q.kick()
	})
}

// hold keeps envelopes from any attempt until somebody has looked at them.
// Needs active.mu.
func (q *Queue) hold(items []*item, why error) {
	s := &settlement{change: &Change{}}
	for _, it := range items {
		q.active.handed(it.msg)
		e := q.decide(it, &Result{ID: it.env.ID, Outcome: Deferred, Text: "held: " + why.Error()}, time.Now())
		e.update.Held, e.warn = true, false
		s.change.Update = append(s.change.Update, *e.update)
		s.events = append(s.events, e)
	}
	q.goWhile(func() { _ = q.settle(q.ctx, s) })
}
