package queue

import (
	"sync"
	"time"

	"tabard/lookup"
)

// shareDivisor makes every destination's share of the memory an eighth of what
// is free: however many destinations are stuck, newcomers still find room.
const shareDivisor = 8

// item is an envelope that is in memory. While it is there, the scan leaves its
// row alone.
type item struct {
	env      Envelope
	msg      *message
	dest     *destination
	warned   int
	lane     Lane
	note     *notice          // its sender is still to be told
	last     *notice          // what the last attempt said
	told     bool             // it counts in msg.noted
	delivery *lookup.Delivery // local: how
	job      *lease           // while a worker has it
	dropped  bool             // removed by hand meanwhile
	claimed  bool             // its row is: nobody has updated it since it was inserted
	returns  int              // how often workers gave it back
	deaths   int              // how often they ended with it
	since    time.Time        // it is due, here or in the store
	taken    time.Time        // the last worker took it
}

// message is what items of one message share.
type message struct {
	Message
	body    []byte // while it is in memory
	charged bool   // body counts in active.bytes
	waiting int    // items that no worker has had; the body goes with the last
	live    int    // items in memory
	noted   int    // of those, the ones that wait for a report
}

// active is what the queue has in memory. Its methods need mu, unless they say
// otherwise.
type active struct {
	mu sync.Mutex

	max, maxBytes, concurrency, first, probes int

	items        map[EnvelopeID]*item
	total, bytes int        // admitted, their commit may still be on its way
	lanes        [lanes]int // of total
	leased       int
	destinations map[string]*destination
	pools        map[poolKey]*pool
	paces        map[string]pace // of destinations that have nothing here at the moment
	recovery     recovery
	urged        map[string]struct{} // destinations whose next job is urged: at most maxPaces

	// Ids that left while a scan was reading: its snapshot may still show
	// them, and a row that is gone must not be handed out again.
	scanning bool
	pinned   map[EnvelopeID]bool // rows that Steer changes: they are not to come here; true: a scan passed one over
	left     map[EnvelopeID]struct{}
}

func newActive(o Options) *active {
	return &active{
		max: o.MaxActive, maxBytes: o.MaxBytes, concurrency: o.Concurrency, first: o.First, probes: o.Probes,
		paces:        make(map[string]pace),
		recovery:     newRecovery(),
		urged:        make(map[string]struct{}),
		items:        make(map[EnvelopeID]*item),
		destinations: make(map[string]*destination),
		pools:        make(map[poolKey]*pool),
		left:         make(map[EnvelopeID]struct{}),
		pinned:       make(map[EnvelopeID]bool),
	}
}

// destination is what shares a fate: a relay action and a domain, or a user.
type destination struct {
	key    string
	shares [lanes]share
	leased int // jobs that workers have
	pace
	urging *lease // the job that is urged, and goes alone; nil: none
	turn   turns  // which lane is next
	pool   *pool
	ringed bool // waits for its turn in the pool, in the ring of lane
	lane   Lane
}

// share is what a destination has in one lane.
type share struct {
	count   int  // items in memory
	backlog bool // more of it is due in the store
	hungry  bool // backlog will be read
	ready   []*item
}

// count is how many items of d are in memory.
func (d *destination) count() int {
	n := 0
	for l := range d.shares {
		n += d.shares[l].count
	}
	return n
}

// best returns the best lane in which d has work; false if it has none.
func (d *destination) best() (Lane, bool) {
	for l := range d.shares {
		if len(d.shares[l].ready) > 0 {
			return Lane(l), true
		}
	}
	return 0, false
}

// idle reports whether nothing of d is here or about to come.
func (d *destination) idle() bool {
	for l := range d.shares {
		if s := &d.shares[l]; s.count > 0 || s.backlog || s.hungry {
			return false
		}
	}
	return d.leased == 0 && !d.ringed
}

// pace is what workers told of a destination.
type pace struct {
	window int  // how many jobs they may have: what they said last, 0 if they did not
	proven bool // it answered lately

	servers, source string
	lastError       string
	until           time.Time // not tried before
}

// maxPaces bounds how many destinations are remembered that have no mail.
const maxPaces = 20_000

func (a *active) destination(key string) *destination {
	d := a.destinations[key]
	if d == nil {
		known := a.paces[key]
		delete(a.paces, key)
		d = &destination{key: key, pace: known}
		a.destinations[key] = d
	}
	return d
}

// free is how many more items a lane may have in memory.
func (a *active) free(l Lane) int {
	free := a.max - a.total
	for better := range l {
		free -= max(0, a.max/better.keepDivisor()-a.lanes[better])
	}
	return max(0, free)
}

// room is how many more items d may have in memory in a lane.
func (a *active) room(d *destination, l Lane) int {
	free, mine := a.free(l), 0
	for better := range l + 1 {
		mine += d.shares[better].count
	}
	if r := free/shareDivisor - mine; r > 0 {
		return r
	}
	if d.shares[l].count == 0 && free > 0 {
		return 1
	}
	return 0
}

// roomy reports whether d has room for enough that reading for it is worth it.
func (a *active) roomy(d *destination, l Lane) bool {
	r := a.room(d, l)
	return r > 0 && (d.shares[l].count == 0 || r >= a.max/shareDivisor/4)
}

// admit counts one more item for the destination key, or refuses for lack of
// room.
func (a *active) admit(key string, l Lane) *destination {
	d := a.destination(key)
	if a.room(d, l) == 0 {
		a.forget(d)
		return nil
	}
	d.shares[l].count++
	a.lanes[l]++
	a.total++
	return d
}

// expel takes back an admission.
func (a *active) expel(d *destination, l Lane) {
	d.shares[l].count--
	a.lanes[l]--
	a.total--
	a.forget(d)
}

// forget drops a destination of which nothing is known.
func (a *active) forget(d *destination) {
	if d.idle() {
		delete(a.destinations, d.key)
		if d.pace != (pace{}) {
			a.remember(d)
		}
	}
}

// remember keeps the pace of a destination.
func (a *active) remember(d *destination) {
	for key := range a.paces {
		if len(a.paces) < maxPaces {
			break
		}
		delete(a.paces, key) // any
	}
	a.paces[d.key] = d.pace
}

// enter makes an admitted item known.
func (a *active) enter(it *item) {
	a.items[it.env.ID] = it
	if it.since.IsZero() {
		it.since = it.env.Next
	}
	it.msg.waiting++
	it.msg.live++
}

// leave ends an item's stay; its row says what comes next.
func (a *active) leave(it *item) {
	if a.items[it.env.ID] != it {
		return
	}
	delete(a.items, it.env.ID)
	if it.msg.live--; it.told {
		it.msg.noted--
	}
	if a.scanning {
		a.left[it.env.ID] = struct{}{}
	}
	a.expel(it.dest, it.lane)
}

// handed notes that an item needs its message's body in memory no more.
func (a *active) handed(m *message) {
	if m.waiting--; m.waiting <= 0 {
		a.release(m)
	}
}

func (a *active) release(m *message) {
	if m.charged {
		a.bytes -= len(m.body)
		m.charged = false
	}
	m.body = nil
}
