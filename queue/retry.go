package queue

import (
	"time"
)

// Steps of the quadratic schedule: attempt n comes n*n steps after arrival.
const (
	relayStep = 400 * time.Second
	localStep = 10 * time.Second
	// jitter is the part of a pause, as a divisor, that chance adds.
	jitter = 10
	// lastCall is how long before the time by which a message is wanted it is tried
	// once more.
	lastCall = time.Minute
)

// nextAttempt returns when to try again after the attempts made so far. It is
// never after the envelope expires, or its message should be there, so that either
// is noticed in time.
func (q *Queue) nextAttempt(e *Envelope, by DeliverBy, now, notBefore time.Time) time.Time {
	pause := quadratic(e, now)
	if retry := q.rules.Load().Retry; len(retry) > 0 {
		pause = retry[min(max(e.Attempts, 1), len(retry))-1]
	}
	next := now.Add(pause + q.opt.Jitter(pause/jitter))
	pending := !by.missed(now) && !by.Time.IsZero()
	if last := by.Time.Add(-lastCall); pending && next.After(last) && now.Before(last) {
		next = last
	}
	if next.Before(notBefore) {
		next = notBefore
	}
	if pending && next.After(by.Time) {
		next = by.Time
	}
	if next.After(e.Expires) {
		next = e.Expires
	}
	return next
}

// missed reports whether a message was to be delivered before now.
func (b *DeliverBy) missed(now time.Time) bool { return !b.Time.IsZero() && !now.Before(b.Time) }

// over reports whether an item is not to be tried any more.
func (it *item) over(now time.Time) bool {
	by := &it.msg.DeliverBy
	return !now.Before(it.env.Expires) || !by.Notify && by.missed(now)
}

// lateTold is set in what counts the warnings of an envelope, beside their number,
// once its sender knows that the time of its DeliverBy has passed.
const lateTold = 1 << 16

// warnings is how many delay warnings an envelope has had when one is sent now.
func (q *Queue) warnings(it *item, now time.Time) int {
	n := 0
	for _, at := range q.rules.Load().WarnIntervals { // in whatever order
		if now.Sub(it.env.Created) >= at {
			n++
		}
	}
	if by := &it.msg.DeliverBy; by.Notify && by.missed(now) {
		n |= lateTold
	}
	return n
}

// warns reports whether the sender of an envelope is to be told of its delay now.
// Who gave a time asked to be told that it has passed, whatever else is said of
// delays, unless nothing is ever to be told.
func (q *Queue) warns(it *item, now time.Time) bool {
	if it.msg.Sender == "" {
		return false
	}
	had, due := it.warned, q.warnings(it, now)
	return due&lateTold > had&lateTold && it.env.Notify != "NEVER" ||
		due&^lateTold > had&^lateTold && it.env.wants("DELAY")
}

// quadratic counts from the envelope's arrival, and skips what was missed while
// nothing ran. Arrival may be still to come: of mail that was to be held (RFC 4865) and
// was tried before by hand, and when the clock was set back. It counts from now then.
func quadratic(e *Envelope, now time.Time) time.Duration {
	begin := e.Created
	if begin.After(now) {
		begin = now
	}
	step := relayStep
	if !e.Relay {
		step = localStep
	}
	for n := int64(max(e.Attempts, 1)); ; n++ {
		at := begin.Add(time.Duration(n*n) * step)
		if at.After(now) {
			return at.Sub(now)
		}
		if n > 1<<15 { // a clock that went mad
			return step
		}
	}
}
