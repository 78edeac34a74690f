package deliver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"tabard/internal/address"
	"tabard/queue"
)

// maxText bounds the text of a result, in bytes.
const maxText = 500

// status is what became of one attempt.
type status struct {
	outcome  queue.Outcome
	code     int
	enhanced string
	text     string
	remote   string
}

func (s status) result(id queue.EnvelopeID) queue.Result {
	return queue.Result{ID: id, Outcome: s.outcome, Code: s.code, Enhanced: s.enhanced, Text: s.text, Remote: s.remote}
}

func delivered(text string) status {
	return status{outcome: queue.Delivered, enhanced: "2.0.0", text: address.OneLine(text, maxText)}
}

func deferred(enhanced, format string, args ...any) status {
	return status{outcome: queue.Deferred, enhanced: enhanced, text: address.OneLine(fmt.Sprintf(format, args...), maxText)}
}

func failed(enhanced, format string, args ...any) status {
	return status{outcome: queue.Failed, enhanced: enhanced, text: address.OneLine(fmt.Sprintf(format, args...), maxText)}
}

// refusal is an error that knows its status.
type refusal struct{ st status }

// Error returns the text of the result.
func (r refusal) Error() string { return r.st.text }

// errBody marks errors of reading a body from the queue.
var errBody = errors.New("body")

// statusOf turns the error of a file delivery into a result. What is not known
// to be permanent is deferred.
func statusOf(err error) status {
	if ref, ok := errors.AsType[refusal](err); ok {
		return ref.st
	}
	switch {
	case err == nil:
		return delivered("Delivered")
	case errors.Is(err, context.Canceled):
		return status{outcome: queue.Returned}
	case errors.Is(err, errBody), errors.Is(err, syscall.EIO), errors.Is(err, context.DeadlineExceeded):
		return deferred("4.3.0", "%v", err)
	case errors.Is(err, syscall.EDQUOT):
		return deferred("4.2.2", "%v", err)
	case errors.Is(err, syscall.ENOSPC):
		return deferred("4.3.1", "%v", err)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return failed("5.3.5", "%v", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return deferred("4.3.5", "%v", err)
	}
	return deferred("4.2.0", "%v", err)
}

// logResult writes the line of one attempt.
func (a *agent) logResult(p *parcel, st status) {
	rcpt := p.env.Recipient
	if rcpt == p.env.Address {
		rcpt = "-"
	}
	stat := st.text
	if stat == "" {
		stat = st.outcome.String()
	}
	a.log.Info("mda delivery",
		"evpid", p.env.ID.String(),
		"from", "<"+address.OneLine(p.msg.Sender, maxText)+">",
		"to", "<"+address.OneLine(p.env.Address, maxText)+">",
		"rcpt", "<"+address.OneLine(rcpt, maxText)+">",
		"user", p.user(),
		"delay", delay(p.env.Created),
		"result", st.outcome.String(),
		"stat", stat)
}

// delay is the age of an envelope in whole seconds.
func delay(created time.Time) time.Duration {
	if created.IsZero() {
		return 0
	}
	return max(0, time.Since(created).Truncate(time.Second))
}
