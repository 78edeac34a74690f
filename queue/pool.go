package queue

import (
	"slices"

	"tabard/internal/address"
)

// maxJobEnvelopes bounds the recipients that travel together (RFC 5321 section
// 4.5.3.1.8: every server takes 100).
const maxJobEnvelopes = 100

// takeBytes bounds what one Take returns, about, so that it fits a frame.
const takeBytes = 512 << 10

// poolKey names the workers that can do a job: those that relay, or those that
// deliver as one user id.
type poolKey struct {
	relay bool
	uid   int
}

// pool hands out the jobs of one kind of worker, destination by destination.
// Its methods need active.mu.
type pool struct {
	key      poolKey
	gid      int
	rings    [2][]*destination // with work, below their limit, in order of turn: proven ones, and others
	turn     int               // which ring is next
	probing  int               // jobs in flight that were handed out by the second ring
	probes   int               // how many of those there may be
	waiters  []chan struct{}
	workers  int
	attached chan struct{} // closed and replaced when a worker comes
	spawning bool
}

func (a *active) pool(key poolKey) *pool {
	p := a.pools[key]
	if p == nil {
		p = &pool{key: key, attached: make(chan struct{}), probes: a.probes}
		a.pools[key] = p
	}
	return p
}

// ready puts an item where workers find it.
func (a *active) ready(it *item, p *pool) {
	it.dest.pool = p
	it.dest.ready = append(it.dest.ready, it)
	a.offer(it.dest)
}

// mailboxJobs is how many deliveries to one mailbox may be in flight.
const mailboxJobs = 20

// limit is how many jobs of d may be in flight.
func (a *active) limit(d *destination) int {
	switch {
	case !d.pool.key.relay:
		return min(mailboxJobs, a.concurrency)
	case d.window == 0:
		return min(a.first, a.concurrency)
	}
	return min(d.window, a.concurrency)
}

// ring is the place of a destination in its pool.
func (d *destination) ring() int {
	if d.proven || !d.pool.key.relay {
		return 0
	}
	return 1
}

// offer gives d a turn when it has work and may have more in flight.
func (a *active) offer(d *destination) {
	if d.ringed || len(d.ready) == 0 || d.leased >= a.limit(d) {
		return
	}
	d.ringed = true
	d.pool.rings[d.ring()] = append(d.pool.rings[d.ring()], d)
	d.pool.signal()
}

// clear takes destinations without work out of their turn: what comes for them next
// may be for another pool.
func (p *pool) clear() {
	for i, ring := range p.rings {
		p.rings[i] = slices.DeleteFunc(ring, func(d *destination) bool {
			d.ringed = len(d.ready) > 0
			return !d.ringed
		})
	}
}

// open reports whether jobs of a ring may be handed out. Destinations that have
// not answered yet share a part of what may be in flight: however many of them
// are dead, the others find room.
func (p *pool) open(ring int) bool {
	return len(p.rings[ring]) > 0 && (ring == 0 || p.probing < p.probes)
}

// next returns the ring whose turn it is, of those that are open; -1 if none is.
func (p *pool) next() int {
	for range p.rings {
		ring := p.turn
		p.turn = 1 - p.turn
		if p.open(ring) {
			return ring
		}
	}
	return -1
}

// heard notes what a worker said with a result, or showed by it.
func (a *active) heard(d *destination, r *Result) {
	was := d.ring()
	if r.Window > 0 {
		d.window = r.Window
	}
	d.noteRoute(r)
	switch {
	case r.Outcome == Delivered, r.Outcome == Failed && r.Remote != "":
		d.proven = true
	case r.Outcome == Deferred && r.Code == 0:
		d.proven = false
	}
	if now := d.ring(); d.ringed && now != was {
		i := slices.Index(d.pool.rings[was], d)
		d.pool.rings[was] = slices.Delete(d.pool.rings[was], i, i+1)
		d.pool.rings[now] = append(d.pool.rings[now], d)
		d.pool.signal()
	}
}

// signal wakes one worker.
func (p *pool) signal() {
	if len(p.waiters) > 0 && (p.open(0) || p.open(1)) {
		close(p.waiters[0])
		p.waiters = p.waiters[1:]
	}
}

// wait returns a channel that is closed when there may be work.
func (p *pool) wait() chan struct{} {
	ch := make(chan struct{})
	p.waiters = append(p.waiters, ch)
	return ch
}

// unwait takes back a wait; a wake-up that came meanwhile goes to another.
func (p *pool) unwait(ch chan struct{}) {
	for i, w := range p.waiters {
		if w == ch {
			p.waiters = append(p.waiters[:i:i], p.waiters[i+1:]...)
			return
		}
	}
	p.signal()
}

// lease is a job that a worker has.
type lease struct {
	dest  *destination
	left  int // envelopes without a result
	probe bool
}

// take returns up to max jobs, one destination after the other, to go beside size
// bytes of something else.
func (a *active) take(p *pool, max, size int) [][]*item {
	var jobs [][]*item
	for len(jobs) < max && (len(jobs) == 0 || size < takeBytes) {
		ring := p.next()
		if ring < 0 {
			break
		}
		d := p.rings[ring][0]
		p.rings[ring] = p.rings[ring][1:]
		d.ringed = false
		if job := a.job(d); len(job) > 0 {
			jobs = append(jobs, job)
			size += weight(job)
		}
		a.offer(d)
		a.forget(d)
	}
	p.signal()
	return jobs
}

// job forms the next job of a destination.
func (a *active) job(d *destination) []*item {
	var job []*item
	for len(d.ready) > 0 && len(job) < maxJobEnvelopes {
		it := d.ready[0]
		if len(job) > 0 && (it.msg.ID != job[0].msg.ID || !it.env.Relay || it.forwardedFrom() != job[0].forwardedFrom()) {
			break
		}
		d.ready[0] = nil
		d.ready = d.ready[1:]
		if it.dropped {
			a.handed(it.msg)
			a.leave(it)
			continue
		}
		job = append(job, it)
	}
	if len(job) == 0 {
		return nil
	}
	l := &lease{dest: d, left: len(job), probe: d.ring() == 1}
	if l.probe {
		d.pool.probing++
	}
	for _, it := range job {
		it.job = l
	}
	d.leased++
	a.leased += len(job)
	return job
}

// forwardedFrom is '@' and the domain that an envelope was forwarded from, empty if
// it was not: its reverse-path may be rewritten to that (SRS), and a job has one.
func (it *item) forwardedFrom() string {
	if it.env.Recipient == it.env.Address {
		return ""
	}
	given, err := address.Parse(it.env.Recipient)
	to, err2 := address.Parse(it.env.Address)
	if err == nil && err2 == nil && given == to { // but for the case of the domain
		return ""
	}
	return "@" + given.Domain // none of the bare postmaster
}

// weight is about what a job takes on the wire.
func weight(job []*item) int {
	m := &job[0].msg.Message
	n := len(m.Sender) + len(m.EnvID) + len(m.Helo) + len(m.Session) + len(m.Remote) + len(m.User)
	if m.Size <= InlineBody {
		n += int(m.Size)
	} else {
		n += InlineBody // it does not travel along, but is read and verified first
	}
	for _, it := range job {
		n += 200 + len(it.env.Address) + len(it.env.Recipient) + len(it.env.ORCPT) + len(it.env.LastError) + len(it.env.User)
	}
	return n
}

// unlease ends a worker's hold on an item.
func (a *active) unlease(it *item) {
	l := it.job
	it.job = nil
	a.leased--
	if l.left--; l.left > 0 {
		return
	}
	l.dest.leased--
	if l.probe {
		l.dest.pool.probing--
		l.dest.pool.signal()
	}
	a.offer(l.dest)
}
