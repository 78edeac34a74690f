package mta

import (
	"errors"
	"fmt"
	"time"

	"tabard/internal/address"
	"tabard/queue"
)

// refusal is why a session could not be opened with one server.
type refusal struct {
	fault   fault
	at      string // what we had said
	reply   reply  // code 0: there was none
	err     error
	host    string    // who said so
	until   time.Time // the server is not tried before
	crowded bool      // a limit of ours is the reason
	silent  bool      // known from an earlier attempt: nothing was tried
}

// refuse returns nil if the answer was the one wanted.
func refuse(f fault, at string, r reply, err error, wanted bool) *refusal {
	if err == nil && wanted {
		return nil
	}
	return &refusal{fault: f, at: at, reply: r, err: err}
}

// Error says on one line what happened.
func (r *refusal) Error() string {
	switch {
	case r.err != nil && r.at != "":
		return fmt.Sprintf("%s: %v", r.at, r.err)
	case r.err != nil:
		return r.err.Error()
	}
	return fmt.Sprintf("%s refused: %s", r.at, r.reply)
}

// brief is Error for what is kept of many, and for logs: a reply may have 64 KiB.
func (r *refusal) brief() string { return address.OneLine(r.Error(), maxStat) }

// failure turns a refusal into what it means for mail: it is deferred, also
// when the code was 5xx, because nothing was said about the mail itself.
func (r *refusal) failure() *failure {
	f := &failure{
		outcome: queue.Deferred, code: r.reply.code, enhanced: r.reply.enhanced(),
		text: r.Error(), remote: r.host, notBefore: r.until,
	}
	// What a destination demands beyond a connection says nothing about others.
	if !r.silent && (r.fault == faultConnect || r.fault == faultGreeting || r.fault == faultHello) {
		f.mood = down
	}
	if r.crowded {
		f.outcome = queue.Returned
	}
	if r.reply.code == 0 {
		f.enhanced = r.enhanced()
	}
	return f
}

// enhanced is our own word for a fault (RFC 3463).
func (r *refusal) enhanced() string {
	switch r.fault {
	case faultConnect:
		return "4.4.1"
	case faultNoTLS, faultRefused, faultHandshake, faultPeer, faultUnchecked, faultInjected:
		return "4.7.5"
	case faultUntagged:
		return "4.7.30"
	case faultAuth:
		return "4.7.8"
	}
	return "4.4.2"
}

// failure is one outcome for every envelope of a job.
type failure struct {
	outcome   queue.Outcome
	code      int
	enhanced  string
	text      string
	remote    string
	notBefore time.Time
	security  queue.Security
	hold      int64 // that the mail is kept back by
	mood      mood  // of the servers, of which at least one was tried unless it is unheard
}

func deferred(enhanced, text string) *failure {
	return &failure{outcome: queue.Deferred, enhanced: enhanced, text: text}
}

func failed(enhanced, text string) *failure {
	return &failure{outcome: queue.Failed, enhanced: enhanced, text: text}
}

// returned says that the job was not tried.
func returned(text string) *failure { return &failure{outcome: queue.Returned, text: text} }

// result applies the failure to one envelope.
func (f *failure) result(id queue.EnvelopeID) queue.Result {
	return queue.Result{
		ID: id, Outcome: f.outcome, Code: f.code, Enhanced: f.enhanced, Text: f.text,
		Remote: f.remote, Hold: f.hold, NotBefore: f.notBefore, Security: f.security,
	}
}

// or keeps the failure that says more, of two servers that were tried for the
// same mail. Mail can be tried again as soon as one of them may be, and fails
// only if it does with all.
func (f *failure) or(later *failure) *failure {
	if f == nil {
		return later
	}
	best, other := later, f
	if f.hope() > later.hope() || f.outcome == later.outcome && f.tells() > later.tells() {
		best, other = f, later
	}
	joined := *best
	joined.mood = max(best.mood, other.mood)
	if other.outcome == best.outcome && other.notBefore.Before(joined.notBefore) {
		joined.notBefore = other.notBefore
	}
	return &joined
}

// hope is less for what is final. That a host may be used later, when it is not
// paused or there is room, goes before; and what was found out goes before that.
func (f *failure) hope() int {
	switch f.outcome {
	case queue.Failed:
		return 0
	case queue.Paused:
		return 1
	case queue.Returned:
		return 2
	}
	return 3
}

// tells is how far a failure got: a reply says more than a broken connection, and
// that more than none. A server whose second address does not answer is not down.
func (f *failure) tells() int {
	switch {
	case f.code != 0:
		return 2
	case f.enhanced != "4.4.1":
		return 1
	}
	return 0
}

// errCrowded says that a connection would be one more than we want.
func errCrowded(addr string) error { return fmt.Errorf("too many connections to %s", addr) }

var errBusy = errors.New("too many messages are waiting for this destination")
