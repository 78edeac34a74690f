package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A clock that is set forward while the queue sleeps makes mail due: timers do not
// see that.
func TestClockSetForward(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		set := begin.Add(10 * time.Second) // when, to three hours later
		clock := func() time.Time {
			now := time.Now()
			if now.After(set) {
				now = now.Add(3 * time.Hour)
			}
			return now
		}
		waitUntil(context.Background(), begin.Add(2*time.Hour), nil, clock)
		if d := time.Since(begin); d < 10*time.Second || d > 2*time.Minute {
			t.Errorf("woke after %v", d)
		}
	})
}

// What arrived in the future, by the clock as it is now, waits no longer than what
// arrives now.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for attempts := 1; attempts < 4; attempts++ {
		late := quadratic(&Envelope{Relay: true, Created: now.Add(365 * 24 * time.Hour), Attempts: attempts}, now)
		if want := quadratic(&Envelope{Relay: true, Created: now, Attempts: attempts}, now); late != want {
			t.Errorf("attempt %d after %v, want %v", attempts+1, late, want)
		}
	}
}
