package mta

import (
	"strings"
	"time"

	"tabard/internal/eventlog"
	"tabard/queue"
)

// attemptOf tells the event log of one attempt at one envelope.
func attemptOf(job *queue.Job, env *queue.Envelope, r *queue.Result, began time.Time) *eventlog.Attempt {
	return &eventlog.Attempt{
		Party: env.Party(job.Message.Sender), Action: env.Action, Host: r.Remote,
		TLSWanted: r.Security.Wanted, TLSBy: r.Security.By, TLSHad: r.Security.Had,
		Outcome: r.Outcome.EventWord(), Code: int64(r.Code), Status: r.Enhanced, Text: r.Text,
		DurationMS: max(0, time.Since(began).Milliseconds()), DelayMS: env.AgeMS(),
	}
}

// recordDelivery is logDelivery for the event log.
func (t *transaction) recordDelivery(env *queue.Envelope, r *queue.Result) {
	if !eventlog.On(t.mta.cfg.Events) || r.Outcome == queue.Returned {
		return
	}
	a := attemptOf(t.job, env, r, t.began)
	a.Session, a.Host, a.Peer, a.Source = t.id, t.host.name, t.addr, t.source()
	t.mta.cfg.Events.Record(a)
}

// recordFailure tells of an attempt for which there was no session.
func (m *MTA) recordFailure(job *queue.Job, env *queue.Envelope, r *queue.Result, began time.Time) {
	if eventlog.On(m.cfg.Events) {
		m.cfg.Events.Record(attemptOf(job, env, r, began))
	}
}

// record tells of a session that has ended.
func (s *session) record(reason string) {
	s.mta.recordSession(&eventlog.Session{
		ID: s.id, Peer: s.addr, Name: s.host.name, Helo: s.dest.toward(s.addr).helo, Began: s.began,
		Messages: int64(s.messages), Reason: reason,
	}, &s.channel)
}

// recordSession tells of a session, of which the channel may not have come about.
func (m *MTA) recordSession(e *eventlog.Session, ch *channel) {
	if !eventlog.On(m.cfg.Events) {
		return
	}
	e.Direction = eventlog.Out
	if ch.encrypted {
		e.TLS, e.Verdict = ch.cipher(), ch.verdict.State.String()
		e.Identity = strings.TrimSpace(ch.verdict.Identity + " " + ch.verdict.Reason)
	}
	m.cfg.Events.Record(e)
}
