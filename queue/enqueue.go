package queue

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/rpc"
)

// Enqueue implements Client.
func (q *Queue) Enqueue(ctx context.Context, s Submission, body []byte) error {
	if len(body) > InlineBody {
		return fmt.Errorf("%w: body of %d bytes, want Create", rpc.ErrTooLarge, len(body))
	}
	m, err := q.prepare(ctx, s, int64(len(body)))
	if err != nil {
		return err
	}
	m.Body, m.Checksum = body, Checksum(0, body)
	return q.insert(ctx, m)
}

// prepare checks a submission and completes what the queue decides.
func (q *Queue) prepare(ctx context.Context, s Submission, size int64) (*NewMessage, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	m := &NewMessage{Message: s.Message, Envelopes: make([]NewEnvelope, len(s.Recipients)), Spent: s.Spent}
	if m.Message.ID == 0 {
		m.Message.ID = q.ids.Next()
	}
	// What is stored in milliseconds is in memory, too.
	now := time.Now().Truncate(time.Millisecond)
	m.Message.Created, m.Message.Size = now, size
	if m.Message.Release = m.Message.Release.Truncate(time.Millisecond); !m.Message.Release.After(now) {
		m.Message.Release = time.Time{}
	}
	for i := range s.Recipients {
		m.Envelopes[i] = q.envelope(ctx, &m.Message, &s.Recipients[i], i)
	}
	if s.Message.Sender != "" {
		m.reportExpansions()
	}
	return m, nil
}

func (q *Queue) envelope(ctx context.Context, m *Message, r *Envelope, n int) NewEnvelope {
	info := q.actions.get(ctx, r.Action)
	ttl := info.TTL
	if ttl <= 0 {
		ttl = q.rules.Load().TTL
	}
	begin := m.Created
	if !m.Release.IsZero() {
		begin = m.Release
	}
	expires := begin.Add(ttl)
	if by := m.DeliverBy; !by.Time.IsZero() && !by.Notify && by.Time.Before(expires) {
		expires = by.Time
	}
	return NewEnvelope{
		Envelope: Envelope{
			ID: EnvelopeID{m.ID, n}, Address: r.Address, Recipient: r.Recipient, ORCPT: r.ORCPT, Notify: r.Notify,
			Action: r.Action, Relay: r.Relay, User: r.User,
			Created: begin, Expires: expires, Next: begin,
		},
		Destination: destinationKey(r, info.Host),
		Lane:        m.Lane(),
	}
}

// destinationKey names what shares a fate with an envelope.
func destinationKey(e *Envelope, fixedHosts bool) string {
	switch {
	case !e.Relay:
		return e.Action + "/" + e.User
	case fixedHosts:
		return e.Action
	}
	return e.Action + "/" + domainOf(e.Address)
}

// domainOf returns the domain of an address in A-labels, or as it is when it
// has none such.
func domainOf(addr string) string {
	_, domain := address.Split(addr)
	if ascii, err := address.ToASCII(domain); err == nil {
		return ascii
	}
	return strings.ToLower(domain)
}

// insert makes a message durable, and hands what there is room for straight to
// the schedule.
func (q *Queue) insert(ctx context.Context, m *NewMessage) error {
	defer q.epochs.begin()()
	items := q.admit(m)
	var c *Change
	err := q.store.Encode(m) // what is in memory stays clear
	if err == nil {
		c = &Change{Insert: []NewMessage{*m}}
		err = q.commits.do(ctx, c)
	}
	if err != nil {
		q.expel(items)
		return fmt.Errorf("message %s: %w", m.Message.ID, err)
	}
	q.came(m, c)
	q.inserted(m, items)
	return nil
}

// admit reserves room in memory for the envelopes of a new message, and marks
// those that found it. It keeps a copy of the body, if there is room for that.
func (q *Queue) admit(m *NewMessage) []*item {
	msg := &message{Message: m.Message}
	items := make([]*item, 0, len(m.Envelopes))
	a := q.active
	a.mu.Lock()
	for i := range m.Envelopes {
		e := &m.Envelopes[i]
		if e.Next.After(m.Message.Created) {
			continue
		}
		// Behind what waits on disk for the same destination, not before it.
		if d := a.destinations[e.Destination]; d != nil && d.shares[e.Lane].backlog {
			continue
		}
		if d := a.admit(e.Destination, e.Lane); d != nil {
			e.Claimed = true
			it := &item{env: e.Envelope, msg: msg, dest: d, lane: e.Lane, claimed: true}
			it.note, it.last = parseNotice(e.Notice)
			items = append(items, it)
		}
	}
	if msg.charged = len(items) > 0 && len(m.Body) <= InlineBody && !m.Staged && a.bytes+len(m.Body) <= a.maxBytes; msg.charged {
		a.bytes += len(m.Body)
	}
	a.mu.Unlock()
	if msg.charged {
		msg.body = bytes.Clone(m.Body)
		if msg.body == nil {
			msg.body = []byte{}
		}
	}
	return items
}

// expel undoes admit.
func (q *Queue) expel(items []*item) {
	q.active.mu.Lock()
	defer q.active.mu.Unlock()
	for _, it := range items {
		q.active.expel(it.dest, it.lane)
		q.active.release(it.msg)
		q.freed(it.dest)
	}
}

// recipients counts envelopes, but for those of which only a report is left.
func (m *NewMessage) recipients() int64 {
	var n int64
	for i := range m.Envelopes {
		if m.Envelopes[i].Notice == "" {
			n++
		}
	}
	return n
}

// inserted schedules what is durable now.
func (q *Queue) inserted(m *NewMessage, items []*item) {
	q.count.accepted.Add(1)
	q.count.enqueued.Add(m.recipients())
	q.recordEnvelopes(m)
	a := q.active
	a.mu.Lock()
	now := time.Now()
	for _, it := range items {
		it.since = now
		a.enter(it)
	}
	for _, it := range items {
		q.route(it)
	}
	for i := range m.Envelopes {
		switch e := &m.Envelopes[i]; {
		case e.Claimed:
		case e.Next.After(m.Message.Created):
			q.stored(e.Lane, e.Next)
		default:
			q.waits(e.Destination, e.Lane, e.Next)
		}
	}
	a.mu.Unlock()
	q.resolveSome()
}
