package queue

import (
	"context"
	"time"
)

const (
	scanLimit = 1000            // envelopes read at once
	scanPause = 5 * time.Second // after the store failed
	// parkDivisor makes a scan that found the memory full wait until this part
	// of it is free: not until much is, as some of it may be stuck for long.
	parkDivisor = 64
	// clockLook is how late mail is at most because the clock was set forward.
	clockLook = time.Minute
)

// scanState is where the reading of due envelopes stands. Its fields need
// active.mu.
type scanState struct {
	lanes  [lanes]laneState
	hungry []hungry // with backlog, and room again
	wake   chan struct{}
}

// laneState is the same for one lane.
type laneState struct {
	cursor Cursor    // what is due before it is in memory, or belongs to a destination with backlog
	ahead  bool      // there may be more to read now
	parked bool      // there was no room to read it
	next   time.Time // the earliest attempt after the cursor, when that is known; zero: there is none
	known  bool      // next holds what the store says
	late   time.Time // the earliest that became due while a query ran, which may not have seen it
}

// hungry is a destination that has room again in a lane of which it has a backlog.
type hungry struct {
	*destination
	lane Lane
}

// newScan reads every lane once, for what was due before.
func newScan() scanState {
	s := scanState{wake: make(chan struct{}, 1)}
	for l := range s.lanes {
		s.lanes[l].ahead = true
	}
	return s
}

func (s *scanState) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// stored notes a row that is due at t, in no memory, and of a destination
// without backlog in the lane. Needs active.mu.
func (q *Queue) stored(l Lane, t time.Time) {
	s := &q.scan.lanes[l]
	t = t.Truncate(time.Millisecond) // as the row has it
	switch {
	case q.active.scanning:
		if s.late.IsZero() || t.Before(s.late) {
			s.late = t
		}
	case !t.After(s.cursor.Next):
		s.cursor = Cursor{Next: t.Add(-time.Millisecond)}
		s.ahead = true
		q.scan.poke()
	case s.ahead:
	case s.next.IsZero() || t.Before(s.next):
		s.next = t
		q.scan.poke()
	}
}

// storedAny notes rows that are due at t, in whatever lane. Needs active.mu.
func (q *Queue) storedAny(t time.Time) {
	for l := range lanes {
		q.stored(l, t)
	}
}

// waits notes a row that is due at t, and found no room in memory. Needs
// active.mu.
func (q *Queue) waits(key string, l Lane, t time.Time) {
	if d := q.active.destinations[key]; d != nil && d.count() > 0 {
		d.shares[l].backlog = true // its items make room as they leave
		q.freed(d)
		return
	}
	q.stored(l, t)
}

// freed notes that d, or the memory as a whole, may have room again. Needs
// active.mu.
func (q *Queue) freed(d *destination) {
	a, s := q.active, &q.scan
	for l := range lanes {
		share := &d.shares[l]
		switch {
		case !share.backlog || share.hungry:
		case a.roomy(d, l):
			share.hungry = true
			s.hungry = append(s.hungry, hungry{d, l})
			s.poke()
		case d.count() == 0:
			// The memory is full of others, and nothing of d is there that would
			// make room as it leaves: the scan finds it again from the beginning.
			share.backlog = false
			q.stored(l, time.UnixMilli(0))
			a.forget(d)
		}
		if lane := &s.lanes[l]; lane.parked && a.free(l) >= max(1, a.max/parkDivisor) {
			lane.parked = false
			s.poke()
		}
	}
}

// leave ends an item's stay in memory. Needs active.mu.
func (q *Queue) leave(it *item) {
	q.active.leave(it)
	q.gathered(it.msg)
	q.freed(it.dest)
}

// runScan reads what is due, when it is due and there is room.
func (q *Queue) runScan(ctx context.Context) {
	for ctx.Err() == nil {
		next, err := q.scanOnce(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			q.log.Error("queue scan", "error", err)
			next = time.Now().Add(scanPause)
		}
		q.kick()
		q.rest(ctx, next)
	}
}

// rest waits until next, or until somebody wakes the scan.
func (q *Queue) rest(ctx context.Context, next time.Time) {
	if next.IsZero() {
		select {
		case <-ctx.Done():
		case <-q.scan.wake:
		}
		return
	}
	waitUntil(ctx, next, q.scan.wake, time.Now)
}

// waitUntil returns when the clock of the wall shows at, when there is a wake, or when
// ctx ends. Timers run by another clock, which does not leap when this one is set and
// stands still while the machine sleeps: so a long wait looks at the clock in between.
func waitUntil(ctx context.Context, at time.Time, wake <-chan struct{}, clock func() time.Time) {
	for {
		left := at.Round(0).Sub(clock().Round(0))
		if left <= 0 {
			return
		}
		t := time.NewTimer(min(left, clockLook))
		select {
		case <-ctx.Done():
		case <-wake:
		case <-t.C:
			continue
		}
		t.Stop()
		return
	}
}

// scanOnce reads once for each destination that waits for it, and once in every
// lane for all others; it returns when there is more to do.
func (q *Queue) scanOnce(ctx context.Context) (time.Time, error) {
	if err := q.feed(ctx); err != nil {
		return time.Time{}, err
	}
	again := false
	for l := range lanes {
		more, err := q.advance(ctx, l)
		if err != nil {
			return time.Time{}, err
		}
		again = again || more
	}
	if again {
		return time.Now(), nil
	}
	return q.nextWake(ctx)
}

// nextWake returns the next attempt of all lanes; zero: there is none. A lane for
// which the memory is full has none: room wakes the scan.
func (q *Queue) nextWake(ctx context.Context) (time.Time, error) {
	var wake time.Time
	for l := range lanes {
		next, err := q.nextIn(ctx, l)
		if err != nil {
			return time.Time{}, err
		}
		if !next.IsZero() && (wake.IsZero() || next.Before(wake)) {
			wake = next
		}
	}
	return wake, nil
}

// nextIn asks the store for the next attempt in a lane, unless it is known.
func (q *Queue) nextIn(ctx context.Context, l Lane) (time.Time, error) {
	a, s := q.active, &q.scan.lanes[l]
	a.mu.Lock()
	after, next, ask := s.cursor.Next, s.next, !s.ahead && !s.known
	s.parked = s.ahead && a.free(l) == 0
	switch {
	case s.parked:
		next = time.Time{}
	case s.ahead:
		next = time.Now() // something left meanwhile
	}
	a.mu.Unlock()
	if !ask {
		return next, nil
	}
	next, err := q.store.Next(ctx, l, after)
	if err != nil {
		return time.Time{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case s.ahead:
		return time.Now(), nil // since the store was asked
	case !next.IsZero() && (s.next.IsZero() || next.Before(s.next)):
		s.next = next
	}
	s.known = true
	return s.next, nil
}

// feed reads for destinations whose backlog has room again.
func (q *Queue) feed(ctx context.Context) error {
	a := q.active
	a.mu.Lock()
	list := q.scan.hungry
	q.scan.hungry = nil
	a.mu.Unlock()
	for i, h := range list {
		if err := q.feedOne(ctx, h.destination, h.lane); err != nil {
			a.mu.Lock()
			q.scan.hungry = append(q.scan.hungry, list[i:]...)
			a.mu.Unlock()
			return err
		}
	}
	return nil
}

func (q *Queue) feedOne(ctx context.Context, d *destination, l Lane) error {
	a, share := q.active, &d.shares[l]
	a.mu.Lock()
	if a.room(d, l) == 0 {
		share.hungry = false
		q.settleBacklog(d)
		a.mu.Unlock()
		return nil
	}
	// What is in memory already comes in the answer, too. Backlog is off before
	// the query, lest a row that comes meanwhile be forgotten.
	limit := min(a.room(d, l), scanLimit) + share.count
	share.backlog = false
	a.scanning = true
	a.mu.Unlock()
	rows, err := q.store.Due(ctx, DueQuery{Lane: l, Now: time.Now(), Destination: d.key, Limit: limit})
	a.mu.Lock()
	defer a.mu.Unlock()
	share.backlog = share.backlog || err != nil || len(rows) == limit
	q.take(rows)
	q.endScan()
	if err != nil {
		return err
	}
	share.hungry = false
	q.settleBacklog(d)
	return nil
}

// settleBacklog sees to it that a destination with backlog will be read for.
// Needs active.mu.
func (q *Queue) settleBacklog(d *destination) {
	q.freed(d)
	q.active.forget(d)
}

// advance reads on from the cursor of a lane, if something may be due there. It
// reports whether there is both more to read and room for it.
func (q *Queue) advance(ctx context.Context, l Lane) (more bool, err error) {
	a, s := q.active, &q.scan.lanes[l]
	query, ok := q.nextQuery(l)
	if !ok {
		return false, nil
	}
	rows, err := q.store.Due(ctx, query)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch n := len(rows); {
	case err != nil:
		s.ahead = true
	case n == query.Limit:
		s.ahead, s.cursor = true, rows[n-1].cursor()
	default:
		s.ahead, s.cursor = false, Cursor{Next: query.Now, Destination: "\xff"}
	}
	q.take(rows)
	q.endScan()
	return s.ahead && a.free(l) > 0, err
}

// nextQuery begins a query for whatever there is room for.
func (q *Queue) nextQuery(l Lane) (DueQuery, bool) {
	a, s := q.active, &q.scan.lanes[l]
	now := time.Now().Truncate(time.Millisecond)
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(s.cursor.Next) { // the clock was set back
		s.cursor, s.known = Cursor{}, false
	}
	if !s.ahead && (s.next.IsZero() || now.Before(s.next)) {
		return DueQuery{}, false
	}
	free := a.free(l)
	if free == 0 {
		s.ahead = true
		return DueQuery{}, false
	}
	a.scanning = true
	s.next, s.known = time.Time{}, false // of this cursor
	return DueQuery{Lane: l, Now: now, After: s.cursor, Except: a.saturated(l), Limit: min(free, scanLimit)}, true
}

// saturated returns the destinations without room in a lane, which are read for
// when they have.
func (a *active) saturated(l Lane) []string {
	var keys []string
	for key, d := range a.destinations {
		if s := &d.shares[l]; s.backlog || a.room(d, l) == 0 {
			s.backlog = true
			keys = append(keys, key)
		}
	}
	return keys
}

// endScan is the end of a query. While it ran, active.left held what left the
// memory: the answer may still show rows that are gone since. (Holding the lock
// across the query would do the same, and stop all else.)
func (q *Queue) endScan() {
	q.active.scanning = false
	clear(q.active.left)
	for l := range lanes {
		s := &q.scan.lanes[l]
		if late := s.late; !late.IsZero() {
			s.late = time.Time{}
			q.stored(l, late)
		}
	}
}

// take brings rows into memory. Needs active.mu.
func (q *Queue) take(rows []Stored) {
	a := q.active
	messages := make(map[*Message]*message)
	for i := range rows {
		r := &rows[i]
		if _, gone := a.left[r.ID]; gone || a.items[r.ID] != nil {
			continue
		}
		if _, changes := a.pinned[r.ID]; changes {
			a.pinned[r.ID] = true
			continue
		}
		d := a.admit(r.Destination, r.Lane)
		if d == nil {
			q.waits(r.Destination, r.Lane, r.Next)
			continue
		}
		msg := messages[r.Message]
		if msg == nil {
			msg = &message{Message: *r.Message}
			messages[r.Message] = msg
		}
		it := &item{env: r.Envelope, msg: msg, dest: d, lane: r.Lane, warned: r.Warned}
		it.note, it.last = parseNotice(r.Notice)
		a.enter(it)
		q.route(it)
	}
}
