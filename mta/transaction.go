package mta

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tabard/queue"
)

// transaction sends one message to some of its recipients over a session.
type transaction struct {
	*session
	job     *queue.Job
	began   time.Time
	from    string
	utf8    bool // SMTPUTF8 is used
	rcpts   []rcpt
	results []queue.Result
	again   []queue.Envelope // for another transaction of the same session
	taken   int              // recipients that the server took
	goAhead bool             // the server said 354
	stale   bool             // the session had ended before anything was sent
	open    bool             // the server is in a transaction

	chunking   bool   // the body goes by BDAT (RFC 3030)
	signatures []byte // header fields before the message
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
	t.began = time.Now()
	if err := t.host.policy.permits(t.channel); err != nil {
		t.settleAll(deferred("4.7.5", err.Error()))
	} else if f := t.fits(); f != nil {
		t.settleAll(f)
	} else if t.envelope() {
		t.data(ctx)
		t.mta.count.sent(t.began)
	}
	t.finish()
}

// fits checks what the server is known to refuse, before it is asked.
func (t *transaction) fits() *failure {
	if limit := t.sizeLimit(); limit > 0 && t.size() > limit {
		f := failed("5.3.4", fmt.Sprintf("message of %d bytes exceeds the server's limit of %d", t.size(), limit))
		f.remote = t.host.name
		return f
	}
	if f := sound(t.job); f != nil {
		return f
	}
	if f := t.inTime(time.Now()); f != nil {
		return f
	}
	_, t.chunking = t.offers("CHUNKING")
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
		if !sendable(wire) {
			r.result = failed("5.1.3", "the address cannot be sent").result(r.env.ID)
			continue
		}
		r.address = wire
		t.utf8 = t.utf8 || utf8
	}
	t.from = from
	if !sendable(from) {
		return failed("5.5.4", "the sender's address cannot be sent")
	}
	return nil
}

// noUTF8 is RFC 6531 section 3.7.1: nobody may rewrite the message for a server
// that cannot take it.
func (t *transaction) noUTF8() *failure {
	f := failed("5.6.7", "the server does not support SMTPUTF8, which the message needs")
	f.remote = t.host.name
	return f
}

// question is one command of a transaction.
type question struct {
	line string
	verb string
	rcpt *rcpt // RCPT: of whom
}

// questions lists the commands up to the body. A body that goes by BDAT is not
// asked for.
func (t *transaction) questions() []question {
	list := make([]question, 1, len(t.rcpts)+2)
	list[0] = question{line: t.mailLine(t.from, t.utf8), verb: "MAIL"}
	for i := range t.rcpts {
		if r := &t.rcpts[i]; r.result.Outcome == 0 {
			list = append(list, question{line: t.rcptLine(&r.env, r.address), verb: "RCPT", rcpt: r})
		}
	}
	if !t.chunking {
		list = append(list, question{line: "DATA", verb: "DATA"})
	}
	return list
}

// envelope sends the commands, as many together as the server lets us, and
// settles the recipients that it refused. It reports whether the body may follow.
func (t *transaction) envelope() bool {
	list := t.questions()
	for len(list) > 0 && t.conn.err == nil && t.undecided() > 0 {
		n := t.conn.group(list)
		lines := make([]string, n)
		for i, q := range list[:n] {
			lines[i] = q.line
		}
		err := t.conn.send(lines...)
		for _, q := range list[:n] {
			if t.answer(q, err); t.conn.err != nil {
				return false
			}
		}
		list = list[n:]
	}
	if t.goAhead && t.taken == 0 && t.conn.err == nil {
		t.nothing()
	}
	return t.taken > 0 && t.conn.err == nil && (t.goAhead || t.chunking)
}

// answer reads what the server says to a question and settles whom it is about.
// Behind a MAIL that was refused, the answers to the rest mean nothing.
func (t *transaction) answer(q question, err error) {
	timeout := t.conn.link.timeouts.Command
	if q.verb == "DATA" {
		timeout = t.conn.link.timeouts.Data
	}
	var r reply
	if err == nil {
		r, err = t.conn.reply(timeout)
	}
	switch {
	case err != nil, t.conn.err != nil:
		// A kept session may have ended meanwhile. Nothing was sent over it yet.
		t.stale = q.verb == "MAIL" && t.messages > 1
		t.settleAll(t.refused(q.verb, r, err))
	case q.verb == "MAIL" && r.code == 250:
		t.open = true
	case q.verb == "DATA" && r.code == 354:
		t.goAhead = true
	case q.verb != "RCPT":
		t.settleAll(t.refused(q.verb, r, nil))
	case q.rcpt.result.Outcome != 0:
	case r.code/10 == 25:
		t.taken++
	case t.taken > 0 && r.code == 452 && r.tooMany():
		q.rcpt.result.Outcome = queue.Returned // until finish: once more, in another transaction
	default:
		f := t.refused("RCPT", r, nil)
		q.rcpt.result = f.result(q.rcpt.env.ID)
		if t.conn.err != nil {
			t.settleAll(f)
		}
	}
}

// undecided counts the recipients that are still to be decided.
func (t *transaction) undecided() int {
	n := 0
	for i := range t.rcpts {
		if t.rcpts[i].result.Outcome == 0 {
			n++
		}
	}
	return n
}

// nothing ends a body for which nobody is left: the DATA behind refused
// recipients was on its way already, and the server takes it (RFC 2920 section 3.1).
func (t *transaction) nothing() {
	t.goAhead = false
	if t.host.policy.lmtp() { // it would answer for each recipient: never
		t.conn.close()
		return
	}
	_, _ = t.conn.command(t.conn.link.timeouts.End, ".")
}

// refused says what the answer to a command means for those it was about.
func (t *transaction) refused(at string, r reply, err error) *failure {
	switch {
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

// mood is what the transaction tells of the server. That a mailbox is full, or
// not to be reached for now, is not about the server.
func (t *transaction) mood() mood {
	if t.conn.err != nil {
		return trouble
	}
	found := unheard
	for _, r := range t.results {
		switch {
		case r.Outcome != queue.Deferred:
			return fine
		case r.Code != 0 && !strings.HasPrefix(r.Enhanced, "4.1.") && !strings.HasPrefix(r.Enhanced, "4.2."):
			found = trouble
		}
	}
	return found
}

// finish sorts the recipients out and leaves the session as it should be.
func (t *transaction) finish() {
	t.last = time.Now()
	for _, r := range t.rcpts {
		r.result.Security = t.security()
		if r.result.Outcome == queue.Returned && r.result.ID == (queue.EnvelopeID{}) {
			t.again = append(t.again, r.env)
			continue
		}
		t.results = append(t.results, r.result)
		if r.result.Outcome != queue.Delivered {
			t.failures++
		}
		if !t.stale {
			t.logDelivery(t.job, r.env, r.result)
			t.recordDelivery(&r.env, &r.result)
		}
	}
	if t.open {
		t.open = false
		t.reset()
	}
}
