package queue

import (
	"math/rand/v2"
	"time"
)

// Steps of the quadratic schedule: attempt n comes n*n steps after arrival.
const (
	relayStep = 400 * time.Second
	localStep = 10 * time.Second
	// jitter is the part of a pause, as a divisor, that chance adds.
	jitter = 10
)

// nextAttempt returns when to try again after the attempts made so far. It is
// never after the envelope expires, so that expiry is noticed in time.
func nextAttempt(e *Envelope, retry []time.Duration, now, notBefore time.Time) time.Time {
	pause := quadratic(e, now)
	if len(retry) > 0 {
		pause = retry[min(max(e.Attempts, 1), len(retry))-1]
	}
	pause += time.Duration(rand.Int64N(int64(pause)/jitter + 1))
	next := now.Add(pause)
	if next.Before(notBefore) {
		next = notBefore
	}
	if next.After(e.Expires) {
		next = e.Expires
	}
	return next
}

// quadratic counts from the envelope's arrival, and skips what was missed while
// nothing ran.
func quadratic(e *Envelope, now time.Time) time.Duration {
	step := relayStep
	if !e.Relay {
		step = localStep
	}
	for n := int64(max(e.Attempts, 1)); ; n++ {
		at := e.Created.Add(time.Duration(n*n) * step)
		if at.After(now) {
			return at.Sub(now)
		}
		if n > 1<<15 { // a clock that went mad
			return step
		}
	}
}
