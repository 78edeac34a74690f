package mta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

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

// lineStart returns where the second line of p begins whose first byte is a dot;
// 0 if there is none.
func lineStart(p []byte) int { return bytes.Index(p, []byte("\n.")) + 1 }

// sound checks a body that is at hand, before the server is asked anything.
func sound(job *queue.Job) *failure {
	if job.Body == nil {
		return nil
	}
	if int64(len(job.Body)) != job.Message.Size {
		return deferred("4.3.0", fmt.Sprintf("%v: %v", errLocal, errTruncated))
	}
	var ends lineEnds
	if err := ends.check(job.Body); err != nil || ends.end() != nil {
		return failed("5.6.0", errBareLineEnd.Error())
	}
	return nil
}

// data sends the body, in one chunk where the server offers CHUNKING: its size is
// known. Then it settles who is left by the answer.
func (t *transaction) data(ctx context.Context) {
	err := t.conn.quiet()
	if err == nil {
		t.open = false
		err = t.copyBody(ctx)
	}
	if err != nil {
		t.abandon(err)
		return
	}
	t.judge(t.verdicts())
}

// copyBody writes the message to its end.
func (t *transaction) copyBody(ctx context.Context) error {
	t.conn.beginBody(t.size())
	defer t.conn.endBody()
	out := t.conn.out
	if t.chunking {
		fmt.Fprintf(out, "BDAT %d LAST\r\n", t.size())
		if err := t.copyText(ctx, out); err != nil {
			return err
		}
		return out.Flush()
	}
	d := &dots{out: out}
	if err := t.copyText(ctx, d); err != nil {
		return err
	}
	if err := d.end(); err != nil {
		return err
	}
	return out.Flush()
}

// size is how many bytes go out, before dots are doubled.
func (t *transaction) size() int64 { return t.job.Message.Size + int64(len(t.signatures)) }

// copyText writes the message with its signatures.
func (t *transaction) copyText(ctx context.Context, w io.Writer) error {
	if _, err := w.Write(t.signatures); err != nil {
		return err
	}
	return t.mta.copyText(ctx, t.job, w)
}

// copyText writes exactly as many bytes as the message is said to have.
func (m *MTA) copyText(ctx context.Context, job *queue.Job, w io.Writer) error {
	size := job.Message.Size
	if job.Body != nil {
		_, err := w.Write(job.Body)
		return err
	}
	var ends lineEnds
	for sent := int64(0); sent < size || size == 0; { // no message is empty: it has a Received
		chunk, err := m.fetch(ctx, job, sent)
		if err != nil {
			return fmt.Errorf("%w: %w", errLocal, err)
		}
		if err := ends.check(chunk); err != nil {
			return err
		}
		if sent+int64(len(chunk)) > size {
			return fmt.Errorf("%w: longer than it was", errLocal)
		}
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		sent += int64(len(chunk))
	}
	return ends.end()
}

var errLocal = errors.New("cannot read the message")

func (m *MTA) fetch(ctx context.Context, job *queue.Job, offset int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	chunk, err := m.queue.Body(ctx, job.Message.ID, offset, bodyChunk)
	if err == nil && len(chunk) == 0 {
		err = errTruncated
	}
	return chunk, err
}

// verdicts reads what the server says to the whole message: with LMTP once for
// each recipient that was taken (RFC 2033 section 4.2).
func (t *transaction) verdicts() (replies []reply, err error) {
	n := 1
	if t.host.policy.lmtp() {
		n = t.taken
	}
	for len(replies) < n {
		r, err := t.conn.reply(t.conn.link.timeouts.End)
		if err != nil {
			return replies, err
		}
		replies = append(replies, r)
	}
	return replies, nil
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
	t.conn.close()
	t.settleAll(f)
}

// lastWords looks whether a server that would not take the rest of a body said
// why before it closed.
func (t *transaction) lastWords(err error) *failure {
	if derr := t.conn.link.conn.SetReadDeadline(time.Now().Add(t.conn.link.timeouts.Quit)); derr == nil {
		if r, rerr := readReply(t.conn.link.in); rerr == nil && r.code >= 400 {
			return t.refused("DATA", r, nil)
		}
	}
	return t.refused("message body", reply{}, err)
}

// judge settles the recipients by what followed the final dot. A connection
// lost there leaves open whether the message was taken: it is sent again, since
// a duplicate is better than a loss (RFC 5321 section 4.5.3.2.6, RFC 1047).
func (t *transaction) judge(replies []reply, err error) {
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
			n++
		}
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
		res.Relayed, res.KeepsTime = t.relayed(), t.keepsTime()
	}
	return res
}
