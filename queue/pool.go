package queue

import "tabard/internal/address"

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
	ring     []*destination // with work, below their limit, in order of turn
	waiters  []chan struct{}
	workers  int
	attached chan struct{} // closed and replaced when a worker comes
	spawning bool
}

func (a *active) pool(key poolKey) *pool {
	p := a.pools[key]
	if p == nil {
		p = &pool{key: key, attached: make(chan struct{})}
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

// offer gives d a turn when it has work and may have more in flight.
func (a *active) offer(d *destination) {
	if d.ringed || len(d.ready) == 0 || d.leased >= a.concurrency {
		return
	}
	d.ringed = true
	d.pool.ring = append(d.pool.ring, d)
	d.pool.signal()
}

// signal wakes one worker.
func (p *pool) signal() {
	if len(p.ring) > 0 && len(p.waiters) > 0 {
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
	dest *destination
	left int // envelopes without a result
}

// take returns up to max jobs, one destination after the other.
func (a *active) take(p *pool, max int) [][]*item {
	var jobs [][]*item
	size := 0
	for len(p.ring) > 0 && len(jobs) < max && size < takeBytes {
		d := p.ring[0]
		p.ring = p.ring[1:]
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
	l := &lease{dest: d, left: len(job)}
	for _, it := range job {
		it.job = l
	}
	d.leased++
	a.leased += len(job)
	return job
}

// forwardedFrom is the domain that an envelope was forwarded from, empty if it was
// not: its reverse-path may be rewritten to that (SRS), and a job has one.
func (it *item) forwardedFrom() string {
	if it.env.Recipient == it.env.Address {
		return ""
	}
	_, domain := address.Split(it.env.Recipient)
	return domain
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
	a.offer(l.dest)
}
