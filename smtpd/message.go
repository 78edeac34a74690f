package smtpd

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
	"tabard/internal/rpc"
	"tabard/queue"
)

// incoming is a message on its way into the queue. Small ones are collected and
// handed over whole; others stream in pieces of queue.InlineBody.
//
// The first fault decides the reply; what comes after it is read and forgotten,
// so that the dialogue stays in step.
type incoming struct {
	s       *session
	tx      *transaction
	id      queue.MessageID
	idText  string
	created time.Time
	head    header
	buf     []byte
	stored  int64 // bytes handed to w
	size    int64 // bytes of content that the client sent
	w       queue.Writer
	chunks  chunks // BDAT only
	fault   *smtp.SMTPError
}

// begin starts a message with the fields that we add in front. hint is a guess
// at its size.
func (s *session) begin(tx *transaction, hint int64) *incoming {
	const own = 512 // our fields
	now := time.Now()
	tx.spent[queue.StepAccept] = now.Sub(tx.began)
	id := s.srv.ids.next(now)
	m := &incoming{s: s, tx: tx, id: id, idText: id.String(), created: now}
	m.head = header{out: m.store, submission: s.user != "" || s.c.peer.socket, missing: m.missing}
	room := min(max(tx.options.Size, hint)+own, queue.InlineBody)
	m.buf = s.received(s.srv.pieces.get(int(room)), tx, m.idText, now)
	return m
}

// missing makes the fields that a submitted message lacks.
func (m *incoming) missing(date, messageID bool) []byte {
	var b []byte
	if !date {
		b = append(m.created.UTC().AppendFormat(append(b, "Date: "...), time.RFC1123Z), '\r', '\n')
	}
	if !messageID {
		b = append(b, "Message-ID: <"+m.idText+"@"+m.s.c.hostname()+">\r\n"...)
	}
	return b
}

// take is the scanner's sink.
func (m *incoming) take(p []byte) {
	m.size += int64(len(p))
	if m.size > m.s.srv.cfg.MaxMessageSize {
		m.fail(refuse(552, smtp.EnhancedCode{5, 3, 4}, "Message exceeds the maximum size"))
	}
	if m.fault == nil {
		m.head.take(p)
	}
}

// overrun reports whether a client goes on sending long after its message was
// too large: then the session ends, for reading on has no bound.
func (m *incoming) overrun() bool { return m.size > 2*m.s.srv.cfg.MaxMessageSize+1<<20 }

// fail keeps the first fault and lets go of what was stored.
func (m *incoming) fail(e *smtp.SMTPError) {
	if m.fault == nil {
		m.fault = e
		m.abort()
	}
}

// abort forgets the message. It may be called more than once.
func (m *incoming) abort() {
	if m.w != nil {
		m.w.Abort()
		m.w = nil
	}
	m.letGo()
}

// letGo gives back the memory of what was collected.
func (m *incoming) letGo() {
	m.s.srv.pieces.put(m.buf)
	m.buf = nil
}

// store collects a piece of what is to be kept.
func (m *incoming) store(p []byte) {
	for m.fault == nil && len(m.buf)+len(p) > queue.InlineBody {
		k := queue.InlineBody - len(m.buf)
		m.collect(p[:k])
		p = p[k:]
		m.spill()
	}
	if m.fault == nil {
		m.collect(p)
	}
}

// collect appends to the buffer, which grows in few steps and never beyond
// queue.InlineBody.
func (m *incoming) collect(p []byte) {
	if need := len(m.buf) + len(p); need > cap(m.buf) {
		grown := append(m.s.srv.pieces.get(min(max(need, 4*cap(m.buf)), queue.InlineBody)), m.buf...)
		m.letGo()
		m.buf = grown
	}
	m.buf = append(m.buf, p...)
}

// spill writes the buffer to the queue's stream.
func (m *incoming) spill() {
	if len(m.buf) == 0 {
		return
	}
	if m.w == nil {
		w, err := m.s.srv.queue.Create(m.s.c.ctx)
		if err != nil {
			m.fail(m.s.notStored(err))
			return
		}
		m.w = w
	}
	if _, err := m.w.Write(m.buf); err != nil {
		m.fail(m.s.notStored(err))
		return
	}
	m.stored += int64(len(m.buf))
	m.buf = m.buf[:0]
}

// finish hands the message over. It returns the reply, 250 only when the queue
// has the message on disk.
func (m *incoming) finish() *smtp.SMTPError {
	ended := time.Now()
	m.head.end()
	if m.head.received > maxReceived {
		m.fail(refuse(554, smtp.EnhancedCode{5, 4, 6}, "Routing loop: too many Received fields"))
	}
	if m.w != nil {
		m.spill()
	}
	if m.fault != nil {
		return m.fault
	}
	m.tx.spent[queue.StepBody] = ended.Sub(m.created)
	ctx, cancel := context.WithTimeout(m.s.c.ctx, m.s.srv.cfg.Timeouts.Commit)
	defer cancel()
	sub := m.submission()
	err := m.commit(ctx, sub)
	m.letGo()
	if err != nil {
		return m.s.notStored(err)
	}
	m.s.srv.count.accepted(ended, len(sub.Recipients), sub.Message.Size)
	m.s.mails++
	m.s.c.errors, m.s.c.overshot = 0, 0
	m.log(sub)
	m.record(&sub)
	if w := &m.tx.wishes; w.lowered { // RFC 6710: what follows 2.3.6 is the priority
		return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 3, 6}, Message: strconv.Itoa(w.priority) + " is the priority of " + m.idText + " Message accepted for delivery"}
	}
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: m.idText + " Message accepted for delivery"}
}

func (m *incoming) commit(ctx context.Context, sub queue.Submission) error {
	if m.w == nil {
		return m.s.srv.queue.Enqueue(ctx, sub, m.buf)
	}
	w := m.w
	m.w = nil // exactly one of Commit and Abort
	return w.Commit(ctx, sub)
}

func (m *incoming) submission() queue.Submission {
	s, tx := m.s, m.tx
	size := m.stored
	if m.w == nil {
		size = int64(len(m.buf))
	}
	for i := range tx.envelopes {
		tx.envelopes[i].ID = queue.EnvelopeID{Message: m.id, N: i}
	}
	return queue.Submission{
		Message: queue.Message{
			ID: m.id, Sender: tx.sender, Size: size,
			EightBit: tx.options.Body == smtp.Body8BitMIME, UTF8: tx.options.UTF8,
			Priority: tx.wishes.priority, Release: tx.wishes.release, DeliverBy: tx.wishes.by,
			RequireTLS: tx.options.RequireTLS, TLSOptional: m.head.tlsOptional(),
			Ret: string(tx.options.Return), EnvID: tx.options.EnvelopeID,
			Session: s.c.id, User: s.user, Helo: s.helo, Remote: s.c.peer.text(), Created: m.created,
		},
		Recipients: tx.envelopes, Spent: tx.spent,
	}
}

// log writes what OpenSMTPD's readers expect: one line for the message, one for
// each envelope.
func (m *incoming) log(sub queue.Submission) {
	c := m.s.c
	c.event("smtp message", slog.String("msgid", m.idText), slog.Int64("size", sub.Message.Size),
		slog.Int("nrcpt", len(m.tx.rcpts)), slog.String("proto", m.s.protocol(m.tx)))
	for i := range sub.Recipients {
		e := &sub.Recipients[i]
		c.event("smtp envelope", slog.String("evpid", m.idText+"."+strconv.Itoa(e.ID.N)),
			slog.String("from", "<"+m.tx.sender+">"), slog.String("to", "<"+e.Address+">"))
	}
}

// notStored turns the queue's error into a reply, and logs it.
func (s *session) notStored(err error) *smtp.SMTPError {
	s.c.warn("smtp queue failed", slog.String("error", address.OneLine(err.Error(), 512)))
	switch {
	case errors.Is(err, rpc.ErrNoSpace):
		return refuse(452, smtp.EnhancedCode{4, 3, 1}, "Insufficient system storage")
	case errors.Is(err, rpc.ErrTooLarge):
		return refuse(552, smtp.EnhancedCode{5, 3, 4}, "Message exceeds the maximum size")
	}
	return refuse(451, smtp.EnhancedCode{4, 3, 0}, "Message not stored, try again later")
}
