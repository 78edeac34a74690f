package queue

import (
	"slices"
	"time"

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
	rings    [2]ring    // of proven destinations, and of others
	turn     [lanes]int // which ring is next, in each lane: turns in others do not count
	laneTurn turns      // which lane
	probing  int        // jobs in flight that were handed out by the second ring
	probes   int        // how many of those there may be
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

// ring is destinations with work, below their limit, in order of turn: each in the
// best lane of its work.
type ring [lanes][]*destination

func (r *ring) waits() bool {
	for l := range r {
		if len(r[l]) > 0 {
			return true
		}
	}
	return false
}

func (r *ring) remove(d *destination) {
	i := slices.Index(r[d.lane], d)
	r[d.lane] = slices.Delete(r[d.lane], i, i+1)
}

// ready puts an item where workers find it: behind those of its lane that are not of
// lower priority.
func (a *active) ready(it *item, p *pool) {
	it.dest.pool = p
	s := &it.dest.shares[it.lane]
	i := len(s.ready)
	for i > 0 && s.ready[i-1].msg.Priority < it.msg.Priority {
		i--
	}
	s.ready = slices.Insert(s.ready, i, it)
	a.offer(it.dest)
}

// works reports whether d has something for workers.
func (d *destination) works() bool {
	_, ok := d.best()
	return ok
}

// mailboxJobs is how many deliveries to one mailbox may be in flight.
const mailboxJobs = 20

// limit is how many jobs of d may be in flight.
func (a *active) limit(d *destination) int {
	switch {
	case !d.pool.key.relay:
		return min(mailboxJobs, a.concurrency)
	case d.urging != nil:
		return 1
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
	lane, ok := d.best()
	if !ok || d.ringed && d.lane <= lane || d.leased >= a.limit(d) {
		return
	}
	ring := &d.pool.rings[d.ring()]
	if d.ringed {
		ring.remove(d)
	}
	d.ringed, d.lane = true, lane
	ring[lane] = append(ring[lane], d)
	d.pool.signal()
}

// clear takes destinations without work out of their turn: what comes for them next
// may be for another pool.
func (p *pool) clear() {
	for i := range p.rings {
		for l, list := range p.rings[i] {
			p.rings[i][l] = slices.DeleteFunc(list, func(d *destination) bool {
				d.ringed = d.works()
				return !d.ringed
			})
		}
	}
}

// has reports whether jobs of a ring may be handed out in a lane. Destinations that
// have not answered yet share a part of what may be in flight: however many of them
// are dead, the others find room.
func (p *pool) has(ring int, l Lane) bool {
	return len(p.rings[ring][l]) > 0 && (ring == 0 || p.probing < p.probes)
}

// open reports whether any job may be handed out.
func (p *pool) open() bool {
	return p.rings[0].waits() || p.rings[1].waits() && p.probing < p.probes
}

// next returns the lane whose turn it is, and of the rings that have work in it the
// one whose turn it is; -1 if there is no work. The lane is chosen first: the worst mail
// of one ring does not go before the best of the other.
func (p *pool) next() (ring int, lane Lane) {
	if !p.open() {
		return -1, 0
	}
	lane, _ = p.laneTurn.next(func(l Lane) bool { return p.has(0, l) || p.has(1, l) })
	if ring = p.turn[lane]; !p.has(ring, lane) {
		ring = 1 - ring
	}
	p.turn[lane] = 1 - ring
	return ring, lane
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
		d.pool.rings[was].remove(d)
		d.pool.rings[now][d.lane] = append(d.pool.rings[now][d.lane], d)
		d.pool.signal()
	}
}

// signal wakes one worker.
func (p *pool) signal() {
	if len(p.waiters) > 0 && p.open() {
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
	urged bool // see Job.Urged
}

// urgedAlone is how long no other job of a destination goes beside one that is urged:
// until it is known whether a server answers, and not for all of a long transfer.
const urgedAlone = 10 * time.Second

// goAlone keeps other jobs of its destination back while an urged one finds out how
// that is.
func (a *active) goAlone(l *lease) {
	l.dest.urging = l
	time.AfterFunc(urgedAlone, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if l.dest.urging == l {
			l.dest.urging = nil
			a.offer(l.dest)
		}
	})
}

// urge makes the next job of each destination one that is tried in spite of what
// failed before.
func (a *active) urge(destinations map[string]struct{}) {
	for key := range destinations {
		if len(a.urged) >= maxPaces {
			return
		}
		a.urged[key] = struct{}{}
	}
}

// take returns up to max jobs, one destination after the other, to go beside size
// bytes of something else. What it finds with its time over is none, and returned
// beside them.
func (a *active) take(p *pool, max, size int) (jobs [][]*item, over []*item) {
	now := time.Now()
	for len(jobs) < max && (len(jobs) == 0 || size < takeBytes) {
		n, lane := p.next()
		if n < 0 {
			break
		}
		ring := &p.rings[n]
		d := ring[lane][0]
		ring[lane] = ring[lane][1:]
		d.ringed = false
		job, late := a.job(d, now)
		over = append(over, late...)
		if len(job) > 0 {
			jobs = append(jobs, job)
			size += weight(job)
		}
		a.offer(d)
		a.forget(d)
	}
	p.signal()
	return jobs, over
}

// job forms the next job of a destination. Mail whose time is over by now, since
// nobody took it for long, is left out of it.
func (a *active) job(d *destination, now time.Time) (job, over []*item) {
	lane, _ := d.turn.next(func(l Lane) bool { return len(d.shares[l].ready) > 0 })
	s := &d.shares[lane]
	for len(s.ready) > 0 && len(job) < maxJobEnvelopes {
		it := s.ready[0]
		if len(job) > 0 && (it.msg.ID != job[0].msg.ID || !it.env.Relay || it.forwardedFrom() != job[0].forwardedFrom()) {
			break
		}
		s.ready[0] = nil
		s.ready = s.ready[1:]
		if it.dropped {
			a.handed(it.msg)
			a.leave(it)
			continue
		}
		if it.over(now) {
			over = append(over, it)
			continue
		}
		job = append(job, it)
	}
	if len(job) == 0 {
		return nil, over
	}
	l := &lease{dest: d, left: len(job), probe: d.ring() == 1}
	if l.probe {
		d.pool.probing++
	}
	if _, l.urged = a.urged[d.key]; l.urged {
		delete(a.urged, d.key)
		a.goAlone(l)
	}
	for _, it := range job {
		it.job = l
	}
	d.leased++
	a.leased += len(job)
	return job, over
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
	if l.dest.urging == l {
		l.dest.urging = nil
	}
	if l.probe {
		l.dest.pool.probing--
		l.dest.pool.signal()
	}
	a.offer(l.dest)
}
