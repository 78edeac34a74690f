package mta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/queue"
)

// bodyChunk is how much of a streamed body is asked for at a time, in bytes.
const bodyChunk = 64 << 10

var (
	errBareLineEnd = errors.New("message holds a bare CR or LF")
	errTruncated   = errors.New("message body ends early")
)

// lineEnds watches a body for a CR or LF that is not part of a CRLF: such a
// thing may be a message's end to another server (DESIGN 10, promise 5).
type lineEnds struct{ afterCR bool }

func (e *lineEnds) check(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if e.afterCR {
		if p[0] != '\n' {
			return errBareLineEnd
		}
		p = p[1:]
	}
	p, e.afterCR = bytes.CutSuffix(p, []byte("\r"))
	if n := bytes.Count(p, []byte("\r\n")); n != bytes.Count(p, []byte("\r")) || n != bytes.Count(p, []byte("\n")) {
		return errBareLineEnd
	}
	return nil
}

// end reports a CR at the very end.
func (e *lineEnds) end() error {
	if e.afterCR {
		return errBareLineEnd
	}
	return nil
}

// data sends DATA and the body, and settles who is left by the answer.
func (t *transaction) data(ctx context.Context) {
	var ends lineEnds
	if err := ends.check(t.job.Body); err != nil || ends.end() != nil {
		t.settleAll(failed("5.6.0", errBareLineEnd.Error()))
		return
	}
	var w *smtp.DataCommand
	r, err := t.exchange(t.conn.link.timeouts.Data, func() (err error) {
		w, err = t.client.Data()
		return err
	})
	if err != nil || r.code != 354 {
		t.settleAll(t.refused("DATA", r, err))
		return
	}
	t.open = false
	t.conn.body = true
	err = t.copyBody(ctx, w)
	if err != nil {
		t.abandon(err)
		return
	}
	err = t.end(w)
	t.conn.body = false
	t.judge(err)
}

// copyBody writes the message without its final dot.
func (t *transaction) copyBody(ctx context.Context, w io.Writer) error {
	size := t.job.Message.Size
	if t.job.Body != nil {
		if int64(len(t.job.Body)) != size {
			return fmt.Errorf("%w: %w", errLocal, errTruncated)
		}
		_, err := w.Write(t.job.Body)
		return err
	}
	var ends lineEnds
	for sent := int64(0); sent < size || size == 0; { // no message is empty: it has a Received
		chunk, err := t.fetch(ctx, sent)
		if err != nil {
			return fmt.Errorf("%w: %w", errLocal, err)
		}
		if err := ends.check(chunk); err != nil {
			return err
		}
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		sent += int64(len(chunk))
	}
	return ends.end()
}

var errLocal = errors.New("cannot read the message")

func (t *transaction) fetch(ctx context.Context, offset int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, t.conn.link.timeouts.Lookup)
	defer cancel()
	chunk, err := t.mta.queue.Body(ctx, t.job.Message.ID, offset, bodyChunk)
	if err == nil && len(chunk) == 0 {
		err = errTruncated
	}
	return chunk, err
}

// end writes the final dot and reads the reply, or with LMTP the replies.
func (t *transaction) end(w *smtp.DataCommand) error {
	t.conn.replies = t.conn.replies[:0]
	if t.host.policy.lmtp() {
		_, _ = w.CloseWithLMTPResponse()
	} else {
		_, _ = w.CloseWithResponse()
	}
	return t.conn.err
}

// abandon ends a transaction in the middle of the body. Without the final dot
// nothing is delivered; the connection is the price.
func (t *transaction) abandon(err error) {
	var f *failure
	switch {
	case errors.Is(err, errBareLineEnd):
		f = failed("5.6.0", err.Error())
	case errors.Is(err, errLocal):
		f = deferred("4.3.0", err.Error())
	default:
		f = t.lastWords(err)
	}
	t.conn.Close()
	t.settleAll(f)
}

// lastWords looks whether a server that would not take the rest of a body said
// why before it closed.
func (t *transaction) lastWords(err error) *failure {
	if derr := t.conn.SetReadDeadline(time.Now().Add(t.conn.link.timeouts.Quit)); derr == nil {
		if r, rerr := readReply(t.conn.link.in); rerr == nil && r.code >= 400 {
			return t.refused("DATA", r, nil)
		}
	}
	return t.refused("message body", reply{}, err)
}

// judge settles the recipients by what followed the final dot. A connection
// lost there leaves open whether the message was taken: it is sent again, since
// a duplicate is better than a loss (RFC 5321 section 4.5.3.2.6, RFC 1047).
func (t *transaction) judge(err error) {
	replies := t.conn.replies
	n := 0
	for i := range t.rcpts {
		r := &t.rcpts[i]
		if r.result.Outcome != 0 {
			continue
		}
		if n >= len(replies) {
			r.result = t.lost(err).result(r.env.ID)
			continue
		}
		r.result = t.final(replies[n], r.env)
		if t.host.policy.lmtp() {
			n++ // RFC 2033 section 4.2: one reply for each recipient that was taken
		}
	}
	if len(replies) > 0 && replies[len(replies)-1].code == 421 {
		t.conn.fail(errLeaving)
	}
}

func (t *transaction) lost(err error) *failure {
	if err == nil {
		err = errDialogue
	}
	f := deferred("4.4.2", fmt.Sprintf("no answer to the end of the message, it may arrive twice: %v", err))
	f.remote = t.host.name
	return f
}

// final is the result of a recipient by the last reply about it.
func (t *transaction) final(r reply, env queue.Envelope) queue.Result {
	res := queue.Result{
		ID: env.ID, Outcome: outcome(r), Code: r.code, Enhanced: r.enhanced(), Text: r.text(), Remote: t.host.name,
	}
	if res.Outcome == queue.Delivered {
		res.Relayed = t.relayed()
	}
	return res
}
