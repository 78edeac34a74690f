package mta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/queue"
)

// transaction sends one message to some of its recipients over a session.
type transaction struct {
	*session
	job     *queue.Job
	from    string
	utf8    bool // SMTPUTF8 is used
	rcpts   []rcpt
	results []queue.Result
	again   []queue.Envelope // for another transaction of the same session
	stale   bool             // the session had ended before anything was sent
	open    bool             // the server is in a transaction
}

// rcpt is one recipient and what the server said about it; no outcome yet means
// that it is still to be decided.
type rcpt struct {
	env     queue.Envelope
	address string // as it goes over the wire
	result  queue.Result
}

// begin prepares the transaction of a batch. Recipients that the server could
// not understand are settled at once.
func (s *session) begin(job *queue.Job, batch []queue.Envelope, mailFrom string) *transaction {
	t := &transaction{session: s, job: job, from: job.Message.Sender}
	// The null reverse-path stays: what answers to a bounce must not bounce.
	if mailFrom != "" && t.from != "" {
		t.from = mailFrom
	}
	for _, env := range batch {
		t.rcpts = append(t.rcpts, rcpt{env: env, address: env.Address})
	}
	return t
}

// run carries the transaction out. Afterwards results, again and stale say what
// became of it, and the session is idle or broken.
func (t *transaction) run(ctx context.Context) {
	t.messages++
	if err := t.host.policy.permits(t.channel); err != nil {
		t.settleAll(deferred("4.7.5", err.Error()))
	} else if f := t.fits(); f != nil {
		t.settleAll(f)
	} else if t.mail() && t.recipients() {
		t.data(ctx)
	}
	t.finish()
}

// fits checks what the server is known to refuse, before it is asked.
func (t *transaction) fits() *failure {
	if limit := t.sizeLimit(); limit > 0 && t.job.Message.Size > limit {
		f := failed("5.3.4", fmt.Sprintf("message of %d bytes exceeds the server's limit of %d", t.job.Message.Size, limit))
		f.remote = t.host.name
		return f
	}
	_, can := t.offers("SMTPUTF8")
	from, utf8 := wireAddress(t.from)
	if (utf8 || t.job.Message.UTF8) && !can {
		return t.noUTF8()
	}
	t.utf8 = utf8 || t.job.Message.UTF8
	for i := range t.rcpts {
		r := &t.rcpts[i]
		wire, utf8 := wireAddress(r.address)
		if utf8 && !can {
			r.result = t.noUTF8().result(r.env.ID)
			continue
		}
		r.address = wire
		t.utf8 = t.utf8 || utf8
	}
	t.from = from
	return nil
}

// noUTF8 is RFC 6531 section 3.7.1: nobody may rewrite the message for a server
// that cannot take it.
func (t *transaction) noUTF8() *failure {
	f := failed("5.6.7", "the server does not support SMTPUTF8, which the message needs")
	f.remote = t.host.name
	return f
}

// exchange runs one call of the client and returns the server's whole answer.
func (s *session) exchange(timeout time.Duration, call func() error) (reply, error) {
	s.conn.replies = s.conn.replies[:0]
	s.client.CommandTimeout = timeout
	err := call()
	if s.conn.err != nil {
		return reply{}, s.conn.err
	}
	if len(s.conn.replies) == 0 {
		return reply{}, fmt.Errorf("cannot be sent: %w", err)
	}
	r := s.conn.replies[0]
	if r.code == 421 {
		s.conn.fail(errLeaving) // RFC 5321 section 3.8: the server closes
	}
	return r, nil
}

var (
	errLeaving  = errors.New("the server is closing the session")
	errDialogue = errors.New("the server answers out of turn")
)

// mail sends MAIL and reports whether the server took it.
func (t *transaction) mail() bool {
	opts := &smtp.MailOptions{Size: t.job.Message.Size, UTF8: t.utf8}
	opts.Return, opts.EnvelopeID = returnOptions(t.job.Message)
	r, err := t.exchange(t.conn.link.timeouts.Command, func() error { return t.client.Mail(t.from, opts) })
	if err == nil && r.code == 250 {
		t.open = true
		return true
	}
	// A kept session may have ended meanwhile. Nothing was sent over it yet.
	t.stale = t.messages > 1 && t.conn.err != nil
	t.settleAll(t.refused("MAIL", r, err))
	return false
}

// recipients sends RCPT for each and reports whether any was taken.
func (t *transaction) recipients() bool {
	taken := 0
	for i := range t.rcpts {
		r := &t.rcpts[i]
		if r.result.Outcome != 0 {
			continue
		}
		ans, err := t.exchange(t.conn.link.timeouts.Command, func() error {
			return t.client.Rcpt(r.address, rcptOptions(r.env))
		})
		switch {
		case err == nil && ans.code/10 == 25:
			taken++
		case err == nil && taken > 0 && ans.code == 452 && ans.tooMany():
			r.result.Outcome = queue.Returned // until finish: once more, in another transaction
		case err != nil && t.conn.err != nil:
			t.settleAll(t.refused("RCPT", ans, err))
			return false
		default:
			f := t.refused("RCPT", ans, err)
			if err != nil { // an address that no server could be asked for
				f = failed("5.1.3", err.Error())
			}
			r.result = f.result(r.env.ID)
		}
		if t.conn.err != nil {
			t.settleAll(t.refused("RCPT", ans, nil))
			return false
		}
	}
	return taken > 0
}

// refused says what the answer to a command means for those it was about.
func (t *transaction) refused(at string, r reply, err error) *failure {
	switch {
	case err != nil && t.conn.err == nil: // not an answer: our own client would not send it
		return failed("5.5.4", at+": "+err.Error())
	case err != nil:
		f := deferred("4.4.2", fmt.Sprintf("%s: %v", at, err))
		f.remote = t.host.name
		return f
	}
	f := &failure{outcome: outcome(r), code: r.code, enhanced: r.enhanced(), text: r.text(), remote: t.host.name}
	if r.code < 400 { // a yes, but not to this
		t.conn.fail(errDialogue)
		f.outcome, f.enhanced, f.text = queue.Deferred, "4.5.0", fmt.Sprintf("%s: %v: %s", at, errDialogue, r)
	}
	return f
}

// outcome is what a reply code means for mail (RFC 5321 section 4.2.1).
func outcome(r reply) queue.Outcome {
	switch {
	case r.ok():
		return queue.Delivered
	case r.permanent():
		return queue.Failed
	}
	return queue.Deferred
}

// tooMany tells "no more recipients in this transaction" from a full mailbox.
func (r reply) tooMany() bool { return r.enhanced() == "" || r.enhanced() == "4.5.3" }

// settleAll decides whatever is undecided.
func (t *transaction) settleAll(f *failure) {
	for i := range t.rcpts {
		if r := &t.rcpts[i]; r.result.Outcome == 0 {
			r.result = f.result(r.env.ID)
		}
	}
}

// finish sorts the recipients out and leaves the session as it should be.
func (t *transaction) finish() {
	for _, r := range t.rcpts {
		if r.result.Outcome == queue.Returned && r.result.ID == (queue.EnvelopeID{}) {
			t.again = append(t.again, r.env)
			continue
		}
		t.results = append(t.results, r.result)
		if !t.stale {
			t.logDelivery(t.job, r.env, r.result)
		}
	}
	if t.open {
		t.open = false
		t.reset()
	}
}
