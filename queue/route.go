package queue

import (
	"context"
	"fmt"
	"time"

	"tabard/lookup"
)

const (
	resolvers   = 16               // local deliveries that are looked up at once
	resolveWait = 30 * time.Second // for one of them
	spawnWait   = 30 * time.Second // for a worker to start and attach itself
)

// route sends an item on its way: to be reported, to be looked up, or to the
// workers. Needs active.mu.
func (q *Queue) route(it *item) {
	switch {
	case it.note != nil:
		q.active.handed(it.msg)
		q.tell(it)
	case q.held(it): // even when its time is over
	case it.over(time.Now()):
		it.note = expired(it)
		q.active.handed(it.msg)
		q.tell(it)
	case it.env.Relay:
		q.active.ready(it, q.active.pool(poolKey{relay: true}))
	default:
		q.resolve.list = append(q.resolve.list, it)
	}
}

// held keeps an item back if there is a hold about it. Needs active.mu.
func (q *Queue) held(it *item) bool {
	h := q.holdOf(&it.env, it.msg.Sender)
	if h != nil {
		q.suspend([]*item{it}, h)
	}
	return h != nil
}

// resolveSome looks up local deliveries as long as there are any.
func (q *Queue) resolveSome() {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for q.running && q.ctx.Err() == nil && q.resolve.workers < min(resolvers, len(q.resolve.list)) {
		q.resolve.workers++
		q.goWhile(q.resolveAll)
	}
}

func (q *Queue) resolveAll() {
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for q.ctx.Err() == nil {
		it, ok := q.resolve.pop()
		if !ok {
			break
		}
		a.mu.Unlock()
		d, err := q.delivery(it)
		a.mu.Lock()
		q.resolved(it, d, err)
	}
	q.resolve.workers--
}

func (q *Queue) delivery(it *item) (lookup.Delivery, error) {
	ctx, cancel := context.WithTimeout(q.ctx, resolveWait)
	defer cancel()
	return q.local.Delivery(ctx, lookup.DeliveryRequest{
		Action: it.env.Action, User: it.env.User, Address: it.env.Address,
		Recipient: it.env.Recipient, Sender: it.msg.Sender,
	})
}

// resolved gives an item to the workers of its user id. Needs active.mu.
func (q *Queue) resolved(it *item, d lookup.Delivery, err error) {
	switch {
	case it.dropped:
		q.active.handed(it.msg)
		q.leave(it)
	case err != nil && q.ctx.Err() != nil:
		// Stopping: the row is found at the next start.
	case err != nil:
		q.conclude([]*item{it}, Result{Outcome: Deferred, Enhanced: "4.3.0", Text: "lookup: " + err.Error()})
	case d.Gone:
		q.conclude([]*item{it}, Result{Outcome: Failed, Enhanced: "5.1.1", Text: d.Text})
	default:
		q.handLocal(it, &d)
	}
}

func (q *Queue) handLocal(it *item, d *lookup.Delivery) {
	p := q.active.pool(poolKey{uid: d.UID})
	if it.dest.pool != nil && it.dest.pool != p && it.dest.works() {
		q.conclude([]*item{it}, Result{Outcome: Deferred, Enhanced: "4.3.0", Text: "the user's id has changed"})
		return
	}
	if q.held(it) { // since it was asked for
		return
	}
	p.gid = d.GID
	it.delivery = d
	q.active.ready(it, p)
	q.summon(p)
}

// conclude records a result that no worker brought, for items that none had.
// Needs active.mu.
func (q *Queue) conclude(items []*item, r Result) {
	if len(items) == 0 {
		return
	}
	results := make([]Result, len(items))
	for i, it := range items {
		q.active.handed(it.msg)
		results[i] = r
		results[i].ID = it.env.ID
	}
	s := q.settlement(items, results)
	q.goWhile(func() { _ = q.settle(q.ctx, s) })
}

// summon asks for a worker of a user id that has work and none. Needs active.mu.
func (q *Queue) summon(p *pool) {
	if q.opt.Spawn == nil || !q.running || q.ctx.Err() != nil ||
		p.key.relay || p.workers > 0 || p.spawning || !p.rings[0].waits() {
		return
	}
	p.spawning = true
	attached := p.attached
	q.goWhile(func() { q.spawn(p, p.key.uid, p.gid, attached) })
}

func (q *Queue) spawn(p *pool, uid, gid int, attached <-chan struct{}) {
	ctx, cancel := context.WithTimeout(q.ctx, spawnWait)
	defer cancel()
	err := q.opt.Spawn(ctx, uid, gid)
	if err == nil {
		select {
		case <-attached:
		case <-ctx.Done():
			err = fmt.Errorf("did not attach itself: %w", ctx.Err())
		}
	}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	p.spawning = false
	if err != nil && q.ctx.Err() == nil {
		q.log.Error("delivery process", "uid", uid, "error", err)
		q.strand(p, fmt.Sprintf("no delivery process for user id %d: %v", uid, err))
		return
	}
	q.summon(p) // it may have come and gone
}

// strand defers everything that waits for a pool's workers. Needs active.mu.
func (q *Queue) strand(p *pool, why string) {
	var items []*item
	for l := range p.rings[0] { // nobody else has strangers
		for _, d := range p.rings[0][l] {
			d.ringed = false
			for l := range d.shares {
				items = append(items, d.shares[l].ready...)
				d.shares[l].ready = nil
			}
		}
		p.rings[0][l] = nil
	}
	q.conclude(items, Result{Outcome: Deferred, Enhanced: "4.3.0", Text: why})
}
