package queue_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// setRules changes the rules and waits until they are in force whole.
func (r *rig) setRules(rules queue.Rules) {
	learned := make(chan struct{})
	r.SetRules(rules, func() { close(learned) })
	<-learned
}

// life returns how long a new message with this action is tried.
func (r *rig) life(action string) time.Duration {
	r.t.Helper()
	s := message("a@x.example", action+"@y.example")
	s.Recipients[0].Action = action
	r.enqueue(s, text)
	for _, l := range r.list() {
		if e := l.Envelope; e.Action == action && e.Attempts == 0 {
			r.remove(e.ID.Message, e.ID.N)
			return e.Expires.Sub(e.Created)
		}
	}
	r.t.Fatalf("no message of action %s", action)
	return 0
}

// TestSetRules: what a message that is here keeps, and what it follows.
func TestSetRules(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		q := open(t, filepath.Join(dir, "queue.db"), queue.Options{Retry: []time.Duration{time.Hour}, TTL: 48 * time.Hour, WarnIntervals: []time.Duration{}}, &local{})
		w := q.relayer()
		begin := time.Now()
		q.enqueue(message("a@x.example", "b@y.example"), text)
		done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred})
		q.setRules(queue.Rules{Retry: []time.Duration{time.Minute}, TTL: 2 * time.Hour, WarnIntervals: []time.Duration{}})
		var ages []time.Duration
		for range 3 {
			j, err := w.Take(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			ages = append(ages, time.Since(begin))
			if e := j[0].Envelopes[0]; e.Expires.Sub(e.Created) != 48*time.Hour {
				t.Errorf("it now is tried for %v", e.Expires.Sub(e.Created))
			}
			done(t, w, j[0], queue.Result{Outcome: queue.Deferred})
		}
		// The pause that had begun stays; the next ones are by the new rules.
		for i, most := range []time.Duration{67 * time.Minute, 69 * time.Minute, 71 * time.Minute} {
			least := time.Hour + time.Duration(i)*time.Minute
			if ages[i] < least || ages[i] > most {
				t.Errorf("attempt %d at the age of %v, want %v to %v", i+2, ages[i], least, most)
			}
		}
		if ttl := q.life("out"); ttl != 2*time.Hour {
			t.Errorf("a new message is tried for %v", ttl)
		}
		q.stop()
	})
}

// TestSetRulesLearnsActions: as soon as the change is said to be in force, a
// message for a new action has that action's time, and a changed one its new one.
func TestSetRulesLearnsActions(t *testing.T) {
	l := &local{}
	q := open(t, filepath.Join(t.TempDir(), "queue.db"), queue.Options{TTL: 48 * time.Hour}, l)
	if ttl := q.life("fresh"); ttl != 48*time.Hour {
		t.Errorf("an unknown action has %v", ttl)
	}
	fresh := func(ttl time.Duration) {
		l.set(func(l *local) { l.actions = []lookup.ActionInfo{{Name: "fresh", Relay: true, TTL: ttl}} })
	}
	for _, ttl := range []time.Duration{10 * time.Minute, 20 * time.Minute} {
		fresh(ttl)
		q.setRules(queue.Rules{TTL: 48 * time.Hour})
		if got := q.life("fresh"); got != ttl {
			t.Errorf("a new action has %v, want %v", got, ttl)
		}
	}
	fresh(30 * time.Minute)
	l.set(func(l *local) { l.down = errDown })
	q.setRules(queue.Rules{TTL: 48 * time.Hour}) // learns nothing, and says so
	l.set(func(l *local) { l.down = nil })
	if got := q.life("fresh"); got != 30*time.Minute {
		t.Errorf("after tables were down it has %v", got)
	}
	hold, learned := make(chan struct{}), make(chan struct{})
	l.set(func(l *local) { l.hold = hold })
	q.SetRules(queue.Rules{}, func() { close(learned) })
	select {
	case <-learned:
		t.Error("said to be in force before the actions are known")
	case <-time.After(10 * time.Millisecond):
	}
	close(hold)
	<-learned
}
