package mta

import (
	"testing"
	"time"

	"tabard/queue"
)

// busyPeer is a server with one session that is in the middle of a message until
// the gate opens; further ones meet the action at the step.
func busyPeer(t *testing.T, step string, do action, adjust ...func(*Config)) (w *world, p *peer, g *gate, first queue.Job) {
	t.Helper()
	w, p = relayWorld(t, adjust...)
	g = newGate()
	p.on(".", g.hold)
	w.start()
	first = w.flood(1, "x@example.org")[0]
	<-g.in
	p.on(step, do)
	return w, p, g, first
}

// awaitSpare waits until somebody waits for an open session.
func (w *world) awaitSpare() {
	for waiting := 0; waiting == 0; <-time.After(time.Millisecond) {
		w.mta.idle.mu.Lock()
		waiting = len(w.mta.idle.news)
		w.mta.idle.mu.Unlock()
	}
}

// What is wrong with a further session does not put mail off for which there is an
// open one: it goes over that, and the server gets no more.
func TestNoFurtherSession(t *testing.T) {
	for step, do := range map[string]action{
		"": say("421 4.7.0 too many connections from you"), "EHLO": say("451 4.3.2 not now"), "cut": nil,
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			if step == "cut" {
				step, do = "", cut
			}
			w, p, g, first := busyPeer(t, step, do)
			second := w.flood(1, "y@example.org")[0]
			w.awaitSpare()
			third := w.flood(1, "z@example.org")[0] // which the server is not even asked about
			close(g.open)
			for _, j := range []queue.Job{first, second, third} {
				wantResult(t, w.queue.await(t, j.Envelopes[0].ID), queue.Delivered, 250)
			}
			if n := p.connections(); n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// The lane is narrower at once, and mail for which no open session comes free in
// time goes back untried.
func TestNoFurtherSessionInTime(t *testing.T) {
	w, _, g, first := busyPeer(t, "", say("421 4.7.0 too many"), func(c *Config) { c.Timeouts.Connect = 50 * time.Millisecond })
	if r := w.one("y@example.org"); r.Outcome != queue.Returned || r.Window != 1 {
		t.Errorf("result %+v", r)
	}
	close(g.open)
	wantResult(t, w.queue.await(t, first.Envelopes[0].ID), queue.Delivered, 250)
}

// When the open session has done its part the next one may be tried at once.
func TestSessionAfterRefusedOne(t *testing.T) {
	w, p, g, first := busyPeer(t, "", say("421 4.7.0 too many"), func(c *Config) { c.Limits.Messages = 1 })
	second := w.flood(1, "y@example.org")[0]
	w.awaitSpare()
	close(g.open)
	wantResult(t, w.queue.await(t, first.Envelopes[0].ID), queue.Delivered, 250)
	if r := w.queue.await(t, second.Envelopes[0].ID); r.Outcome != queue.Returned {
		t.Errorf("result %+v", r)
	}
	p.on("", nil)
	wantResult(t, w.one("y@example.org"), queue.Delivered, 250)
}

// Mail that may not go over the open sessions does not wait for them.
func TestOpenSessionsUnsuitable(t *testing.T) {
	w, _, g, _ := busyPeer(t, "MAIL", nil)
	defer close(g.open)
	j := job(w.queue.nextID(), "y@example.org")
	j.Message.RequireTLS = true
	wantResult(t, w.deliver(j)[0], queue.Failed, 0, "5.7.10")
}
