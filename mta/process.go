package mta

import (
	"context"
	"errors"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// process makes one attempt at a job. stop ends waiting and opening; running
// transactions end with m.hard.
func (m *MTA) process(stop context.Context, job *queue.Job) []queue.Result {
	if len(job.Envelopes) == 0 {
		return nil
	}
	began := time.Now()
	d, fail := m.route(stop, job)
	if fail != nil {
		return m.failAll(job, job.Envelopes, fail.unless(stop), began)
	}
	l, fail := m.lane(stop, d)
	d.spent.Add(queue.StepRoute, began)
	results := m.pass(stop, l, d, fail, job)
	for i := range results {
		results[i].Spent = d.spent
	}
	return results
}

// pass takes a job through the lane of its destination.
func (m *MTA) pass(stop context.Context, l *lane, d *destination, fail *failure, job *queue.Job) []queue.Result {
	began := time.Now()
	if fail == nil {
		t, err := m.lanes.enter(stop, l, d.key)
		d.spent.Add(queue.StepTurn, began)
		if err == nil {
			results, mood := m.deliver(stop, d, job)
			m.lanes.leave(t, mood)
			return m.told(l, d, results)
		}
		fail = returned(err.Error())
		if errors.Is(err, errBusy) {
			fail.notBefore = time.Now().Add(busyPause)
			pause(stop, busyPause/2)
		}
	}
	results := m.failAll(job, job.Envelopes, fail.unless(stop), began)
	if l != nil {
		return m.told(l, d, results)
	}
	return results
}

// unless is the failure, if it is not for our own stop.
func (f *failure) unless(stop context.Context) *failure {
	if stop.Err() != nil {
		return returned("stopping")
	}
	return f
}

// busyPause is after how long a job is worth another look when too many wait
// for its destination. Half of it is spent here, so that a queue that gives
// such jobs out again at once is not spun.
const busyPause = time.Second

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// route asks how to deliver the job now.
func (m *MTA) route(ctx context.Context, job *queue.Job) (*destination, *failure) {
	first := job.Envelopes[0]
	d, fail := m.destination(ctx, lookup.RouteRequest{
		Action: first.Action, Domain: job.Domain, Sender: job.Message.Sender, Recipient: first.Address,
		Original: first.Recipient,
	})
	if fail == nil {
		d.serve(&job.Message)
		d.urged = job.Urged
	}
	return d, fail
}

// destination looks a route up.
func (m *MTA) destination(ctx context.Context, r lookup.RouteRequest) (*destination, *failure) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	route, err := m.lookup.Route(ctx, r)
	if err != nil {
		return nil, deferred("4.3.0", "cannot look up the route: "+err.Error())
	}
	return m.destinationOf(r.Action, r.Domain, route), nil
}

// deliver runs as many transactions as the recipients need, over as few
// sessions as possible. It returns the worst that it found out about the servers.
func (m *MTA) deliver(stop context.Context, d *destination, job *queue.Job) (results []queue.Result, worst mood) {
	var signed *signed
	began := time.Now()
	todo := job.Envelopes
	for len(todo) > 0 {
		s, fail := m.session(stop, d)
		if fail == nil && signed == nil {
			if signed, fail = m.sign(m.hard, d, job); fail != nil {
				m.done(s)
			}
		}
		if fail != nil {
			return append(results, m.failAll(job, todo, fail, began)...), max(worst, fail.mood)
		}
		for len(todo) > 0 && s.usable() {
			n := min(len(todo), m.cfg.Limits.Recipients)
			s.rest(stop)
			t := s.begin(job, todo[:n], d.route.MailFrom)
			t.signatures = signed.header
			began := time.Now()
			t.run(m.hard)
			d.spent.Add(queue.StepTransfer, began)
			if t.stale {
				break
			}
			worst = max(worst, t.mood())
			results = append(results, m.interrupted(t.results)...)
			todo = append(t.again, todo[n:]...)
		}
		m.done(s)
		if m.hard.Err() != nil {
			return append(results, m.failAll(job, todo, returned("stopping"), began)...), unheard
		}
	}
	return results, worst
}

// interrupted makes attempts that our own stop cut off not count.
func (m *MTA) interrupted(results []queue.Result) []queue.Result {
	if m.hard.Err() == nil {
		return results
	}
	for i, r := range results {
		if r.Outcome == queue.Deferred && r.Code == 0 {
			results[i] = returned("stopping").result(r.ID)
		}
	}
	return results
}

// session returns one that waits, or opens one.
func (m *MTA) session(stop context.Context, d *destination) (*session, *failure) {
	if stop.Err() != nil {
		return nil, returned("stopping")
	}
	if s := m.reuse(m.seek(stop, d, false)); s != nil {
		return s, nil
	}
	begun := time.Now()
	s, fail := m.open(stop, d)
	if fail != nil {
		s, fail = m.spare(stop, d, begun, fail)
	}
	if stop.Err() == nil {
		return s, fail
	}
	// It may have failed for that, or have been closed when it just was open.
	if s != nil {
		s.quit("quit")
	}
	return nil, returned("stopping")
}

// done keeps a session for the next message, or ends it. What became of this one
// is to be told before the server has answered QUIT, unless the next connection may
// only begin some time after the end of this one.
func (m *MTA) done(s *session) {
	switch {
	case s.usable() && !m.conns.wanted(s.spot.keys):
		m.idle.put(s)
		if m.conns.wanted(s.spot.keys) && m.idle.claim(s) { // they came meanwhile, and found nothing to evict
			m.idle.end(s)
		}
	case s.conn.err != nil || s.spot.rest > 0:
		s.quit("quit")
	default:
		m.idle.end(s)
	}
}

// failAll gives envelopes that no server was asked about the same result, of an attempt
// that began at a time.
func (m *MTA) failAll(job *queue.Job, envs []queue.Envelope, f *failure, began time.Time) []queue.Result {
	results := make([]queue.Result, len(envs))
	for i, env := range envs {
		results[i] = f.result(env.ID)
		if f.outcome != queue.Returned && f.outcome != queue.Paused {
			m.cfg.Logger.Info("mta delivery", deliveryAttrs(job, env, results[i], "", f.remote)...)
			m.recordFailure(job, &env, &results[i], began)
		}
	}
	return results
}
