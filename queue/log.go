package queue

import (
	"context"
	"log/slog"
	"time"

	"tabard/internal/address"
)

// logAttrs are what every line about an envelope has, in the field's order.
func logAttrs(m *Message, e *Envelope) []slog.Attr {
	rcpt := "<->" // as OpenSMTPD prints it when it is the same
	if e.Recipient != e.Address {
		rcpt = "<" + e.Recipient + ">"
	}
	return []slog.Attr{
		slog.String("session", m.Session),
		slog.String("evpid", e.ID.String()),
		slog.String("from", "<"+m.Sender+">"),
		slog.String("to", "<"+e.Address+">"),
		slog.String("rcpt", rcpt),
	}
}

// delay is the envelope's age, in whole seconds.
func delay(e *Envelope) slog.Attr {
	return slog.Duration("delay", time.Since(e.Created).Round(time.Second))
}

// logResult writes the line of one attempt. What a worker told, it has logged
// itself, with more about the peer; here it is for who traces the queue.
func (q *Queue) logResult(e *event, told bool) {
	env := &e.it.env
	attrs := logAttrs(&e.it.msg.Message, env)
	name := "mta delivery"
	if !env.Relay {
		name = "mda delivery"
		attrs = append(attrs, slog.String("user", env.User))
	} else {
		attrs = append(attrs, slog.String("relay", e.result.Remote))
	}
	attrs = append(attrs, delay(env),
		slog.String("result", e.result.Outcome.String()),
		slog.String("stat", address.OneLine(errorText(&e.result), maxErrorText)))
	level := slog.LevelInfo
	if told {
		level = slog.LevelDebug
	}
	q.log.LogAttrs(context.Background(), level, name, attrs...)
}

// logUntold writes the line of a failure that nobody is told of.
func (q *Queue) logUntold(e *event) {
	if e.result.Outcome != Failed || e.note != nil {
		return
	}
	why := "the sender does not want to be told"
	if e.it.msg.Sender == "" {
		why = "a bounce is not bounced"
	}
	q.logEnd("queue drop", &e.it.msg.Message, &e.it.env, slog.String("kind", kindFailed),
		slog.String("stat", address.OneLine(errorText(&e.result), maxErrorText)), slog.String("reason", why))
}

// logEnd writes the line of an envelope that ends without a delivery.
func (q *Queue) logEnd(event string, m *Message, e *Envelope, more ...slog.Attr) {
	attrs := append(logAttrs(m, e), delay(e))
	q.log.LogAttrs(context.Background(), slog.LevelInfo, event, append(attrs, more...)...)
}
