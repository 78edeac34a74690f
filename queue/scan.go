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
)

// scanState is where the reading of due envelopes stands. Its fields need
// active.mu.
type scanState struct {
	cursor Cursor         // what is due before it is in memory, or belongs to a destination with backlog
	ahead  bool           // there may be more to read now
	parked bool           // there was no room to read it
	timer  time.Time      // when the loop wakes by itself; zero: it does not
	late   time.Time      // the earliest that became due while a query ran, which may not have seen it
	hungry []*destination // with backlog, and room again
	wake   chan struct{}
}

func (s *scanState) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// stored notes a row that is due at t, in no memory, and of a destination
// without backlog. Needs active.mu.
func (q *Queue) stored(t time.Time) {
	s := &q.scan
	t = t.Truncate(time.Millisecond) // as the row has it
	switch {
	case q.active.scanning:
		if s.late.IsZero() || t.Before(s.late) {
			s.late = t
		}
	case !t.After(s.cursor.Next):
		s.cursor = Cursor{Next: t.Add(-time.Millisecond)}
		s.ahead = true
		s.poke()
	case s.ahead:
	case s.timer.IsZero() || t.Before(s.timer):
		s.timer = t
		s.poke()
	}
}

// waits notes a row that is due at t, and found no room in memory. Needs
// active.mu.
func (q *Queue) waits(key string, t time.Time) {
	if d := q.active.destinations[key]; d != nil && d.count > 0 {
		d.backlog = true // its items make room as they leave
		q.freed(d)
		return
	}
	q.stored(t)
}

// freed notes that d, or the memory as a whole, may have room again. Needs
// active.mu.
func (q *Queue) freed(d *destination) {
	a, s := q.active, &q.scan
	if d.backlog && !d.hungry && a.roomy(d) {
		d.hungry = true
		s.hungry = append(s.hungry, d)
		s.poke()
	}
	if s.parked && a.max-a.total >= max(1, a.max/parkDivisor) {
		s.parked = false
		s.poke()
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
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	case <-q.scan.wake:
	}
}

// scanOnce reads once for each destination that waits for it, and once for all
// others; it returns when there is more to do.
func (q *Queue) scanOnce(ctx context.Context) (time.Time, error) {
	if err := q.feed(ctx); err != nil {
		return time.Time{}, err
	}
	if more, err := q.advance(ctx); err != nil || more {
		return time.Now(), err
	}
	return q.nextWake(ctx)
}

// nextWake looks up the next attempt, unless the memory is full: then room
// wakes the scan.
func (q *Queue) nextWake(ctx context.Context) (time.Time, error) {
	a, s := q.active, &q.scan
	a.mu.Lock()
	after, ahead := s.cursor.Next, s.ahead
	s.timer = time.Time{}
	s.parked = ahead && a.total >= a.max
	parked := s.parked
	a.mu.Unlock()
	switch {
	case parked:
		return time.Time{}, nil
	case ahead:
		return time.Now(), nil // something left meanwhile
	}
	next, err := q.store.Next(ctx, after)
	if err != nil {
		return time.Time{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if next.IsZero() || !s.timer.IsZero() && s.timer.Before(next) {
		next = s.timer // noted while the store was asked
	}
	s.timer = next
	return next, nil
}

// feed reads for destinations whose backlog has room again.
func (q *Queue) feed(ctx context.Context) error {
	a := q.active
	a.mu.Lock()
	hungry := q.scan.hungry
	q.scan.hungry = nil
	a.mu.Unlock()
	for i, d := range hungry {
		if err := q.feedOne(ctx, d); err != nil {
			a.mu.Lock()
			q.scan.hungry = append(q.scan.hungry, hungry[i:]...)
			a.mu.Unlock()
			return err
		}
	}
	return nil
}

func (q *Queue) feedOne(ctx context.Context, d *destination) error {
	a := q.active
	a.mu.Lock()
	if a.room(d) == 0 {
		d.hungry = false
		q.settleBacklog(d)
		a.mu.Unlock()
		return nil
	}
	// What is in memory already comes in the answer, too. Backlog is off before
	// the query, lest a row that comes meanwhile be forgotten.
	limit := min(a.room(d), scanLimit) + d.count
	d.backlog = false
	a.scanning = true
	a.mu.Unlock()
	rows, err := q.store.Due(ctx, DueQuery{Now: time.Now(), Destination: d.key, Limit: limit})
	a.mu.Lock()
	defer a.mu.Unlock()
	d.backlog = d.backlog || err != nil || len(rows) == limit
	q.take(rows)
	q.endScan()
	if err != nil {
		return err
	}
	d.hungry = false
	q.settleBacklog(d)
	return nil
}

// settleBacklog sees to it that a destination with backlog will be read for.
// Needs active.mu.
func (q *Queue) settleBacklog(d *destination) {
	if d.backlog && d.count == 0 && q.active.room(d) == 0 {
		// The memory is full of others, and nothing of it is there that would
		// make room as it leaves: the scan finds it again from the beginning.
		d.backlog = false
		q.stored(time.UnixMilli(0))
	}
	q.freed(d)
	q.active.forget(d)
}

// advance reads on from the cursor. It reports whether there is both more to
// read and room for it.
func (q *Queue) advance(ctx context.Context) (more bool, err error) {
	a, s := q.active, &q.scan
	query, ok := q.nextQuery()
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
	return s.ahead && a.total < a.max, err
}

// nextQuery begins a query for whatever there is room for.
func (q *Queue) nextQuery() (DueQuery, bool) {
	a, s := q.active, &q.scan
	now := time.Now().Truncate(time.Millisecond)
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(s.cursor.Next) {
		s.cursor = Cursor{} // the clock was set back
	}
	free := a.max - a.total
	if free <= 0 {
		s.ahead = true
		return DueQuery{}, false
	}
	a.scanning = true
	return DueQuery{Now: now, After: s.cursor, Except: a.saturated(), Limit: min(free, scanLimit)}, true
}

// saturated returns the destinations without room, which are read for when
// they have.
func (a *active) saturated() []string {
	var keys []string
	for key, d := range a.destinations {
		if d.backlog || a.room(d) == 0 {
			d.backlog = true
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
	if late := q.scan.late; !late.IsZero() {
		q.scan.late = time.Time{}
		q.stored(late)
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
		d := a.admit(r.Destination)
		if d == nil {
			q.waits(r.Destination, r.Next)
			continue
		}
		msg := messages[r.Message]
		if msg == nil {
			msg = &message{Message: *r.Message}
			messages[r.Message] = msg
		}
		it := &item{env: r.Envelope, msg: msg, dest: d, warned: r.Warned}
		it.note, it.last = parseNotice(r.Notice)
		a.enter(it)
		q.route(it)
	}
}
