package queue

import (
	"time"

	"tabard/internal/eventlog"
)

// What the queue tells the event log: every envelope, the attempts that no worker of
// its own tells of, every end of an envelope, and the reports that it makes itself.
// Messages from outside smtpd tells of.

// Party is what every event about an envelope says of it; who tells of it adds the
// session.
func (e *Envelope) Party(sender string) eventlog.Party {
	p := eventlog.Party{Message: e.ID.Message.String(), Envelope: e.ID.String(), Sender: sender, Address: e.Address}
	if e.Recipient != e.Address {
		p.Recipient = e.Recipient
	}
	return p
}

// partyOf is the Party of an envelope, with the session that brought it.
func partyOf(m *Message, e *Envelope) eventlog.Party {
	p := e.Party(m.Sender)
	p.Session = m.Session
	return p
}

// recordEnvelopes tells of a message that is durable now.
func (q *Queue) recordEnvelopes(m *NewMessage) {
	if !eventlog.On(q.opt.Events) {
		return
	}
	for i := range m.Envelopes {
		e := &m.Envelopes[i]
		if e.Notice != "" {
			continue // no recipient: a report on several
		}
		q.opt.Events.Record(&eventlog.Envelope{
			Head: eventlog.Head{At: m.Message.Created}, Party: partyOf(&m.Message, &e.Envelope), Action: e.Action, Destination: e.Destination,
		})
	}
}

// recordReport tells of a report, which is a message of our own.
func (q *Queue) recordReport(m *NewMessage, about MessageID) {
	if !eventlog.On(q.opt.Events) {
		return
	}
	q.opt.Events.Record(&eventlog.Message{
		Head: eventlog.Head{At: m.Message.Created}, ID: m.Message.ID.String(), Sender: m.Message.Sender, Size: m.Message.Size,
		Recipients: int64(len(m.Envelopes)), About: about.String(),
	})
}

// recordSettled tells of one result. told: the worker has told of the attempt itself.
func (q *Queue) recordSettled(e *event, told bool) {
	if !eventlog.On(q.opt.Events) {
		return
	}
	m, env, r := &e.it.msg.Message, &e.it.env, &e.result
	if !told || !env.Relay {
		q.opt.Events.Record(&eventlog.Attempt{
			Party: partyOf(m, env), Action: env.Action, Host: r.Remote, Outcome: r.Outcome.EventWord(),
			Code: int64(r.Code), Status: r.Enhanced, Text: r.Text, DelayMS: env.AgeMS(),
		})
	}
	switch {
	case r.Outcome == Deferred:
	case r.Outcome != Delivered:
		q.recordEnd(m, env, eventlog.Failed, newNotice(kindFailed, r))
	case env.Relay:
		q.recordEnd(m, env, eventlog.Relayed, newNotice(kindRelayed, r))
	default:
		q.recordEnd(m, env, eventlog.Delivered, newNotice(kindDelivered, r))
	}
}

// recordTimes tells how long a message, or an attempt at one of its envelopes, was in
// each stage, if the event log is to have that.
func (q *Queue) recordTimes(t *Times, at time.Time, message, envelope string) {
	if !q.rules.Load().Stages || !eventlog.On(q.opt.Events) {
		return
	}
	for s, d := range t {
		if d > 0 {
			q.opt.Events.Record(&eventlog.Trace{
				Head: eventlog.Head{At: at}, Message: message, Envelope: envelope, Stage: Step(s).String(), DurationUS: d.Microseconds(),
			})
		}
	}
}

// recordEnd tells of the end of an envelope. why may be nil.
func (q *Queue) recordEnd(m *Message, e *Envelope, result string, why *notice) {
	if !eventlog.On(q.opt.Events) {
		return
	}
	r := &eventlog.Result{Party: partyOf(m, e), Result: result, DelayMS: e.AgeMS()}
	if why != nil {
		r.Code, r.Status, r.Text = int64(why.Code), why.Enhanced, why.Text
	}
	q.opt.Events.Record(r)
}

// recordEnded tells of an envelope that ends with its note, unless its result was told
// before.
func (q *Queue) recordEnded(it *item) {
	switch {
	case it.note.Expired:
		q.recordEnd(&it.msg.Message, &it.env, eventlog.Expired, it.note)
	case it.note.Kind == kindExpanded:
		q.recordEnd(&it.msg.Message, &it.env, eventlog.Expanded, nil)
	}
}

// AgeMS is how long ago a message was accepted, in milliseconds; 0: that is not known.
func (e *Envelope) AgeMS() int64 {
	if e.Created.IsZero() {
		return 0
	}
	return max(0, time.Since(e.Created).Milliseconds())
}

// EventWord is how the event log names an outcome.
func (o Outcome) EventWord() string {
	switch o {
	case Delivered:
		return eventlog.OK
	case Failed:
		return eventlog.Perm
	}
	return eventlog.Temp
}
