package smtpd

import (
	"bytes"
	"context"

	"github.com/emersion/go-smtp"

	"tabard/lookup"
)

// maxAhead bounds how many recipients are asked for before their turn.
const maxAhead = 64

// ahead are answers for recipients whose commands wait in the buffer already
// (PIPELINING, RFC 2920). They are asked for together with the first one: the
// tables then see the recipients of a transaction at once, and a round trip to a
// distant database is paid once and not per recipient.
type ahead struct {
	answers map[string]chan answerAhead
	cancel  context.CancelFunc
}

type answerAhead struct {
	reply lookup.RecipientReply
	err   error
}

// lookAhead asks for the recipients that follow in the buffer.
func (s *session) lookAhead(tx *transaction) {
	if tx.ahead != nil && len(tx.ahead.answers) > 0 {
		return // still busy with those seen before
	}
	buffered, err := s.c.br.Peek(s.c.br.Buffered())
	if err != nil {
		return
	}
	rcpts := pipelinedRcpts(buffered, min(maxAhead, s.srv.cfg.MaxRcpt-len(tx.rcpts)-1))
	if len(rcpts) == 0 {
		return
	}
	tx.dropAhead()
	ctx, cancel := s.asking()
	tx.ahead = &ahead{answers: make(map[string]chan answerAhead, len(rcpts)), cancel: cancel}
	facts := s.facts()
	for _, given := range rcpts {
		rcpt, e := mailbox(given, tx.options.UTF8, smtp.EnhancedCode{5, 1, 3})
		if e != nil || tx.ahead.answers[rcpt] != nil {
			continue
		}
		ch := make(chan answerAhead, 1)
		tx.ahead.answers[rcpt] = ch
		go func() {
			r, err := s.srv.lookup.Recipient(ctx, lookup.RecipientRequest{Session: facts, Sender: tx.sender, Recipient: rcpt})
			ch <- answerAhead{r, err}
		}()
	}
}

// takeAhead returns the answer that was asked for ahead of time. It is used once:
// a recipient given again is asked again.
func (tx *transaction) takeAhead(rcpt string) (answerAhead, bool) {
	if tx.ahead == nil {
		return answerAhead{}, false
	}
	ch := tx.ahead.answers[rcpt]
	if ch == nil {
		return answerAhead{}, false
	}
	delete(tx.ahead.answers, rcpt)
	a := <-ch
	return a, true
}

// dropAhead ends questions whose answers nobody will want.
func (tx *transaction) dropAhead() {
	if tx.ahead != nil {
		tx.ahead.cancel()
		tx.ahead = nil
	}
}

// pipelinedRcpts returns the paths of the RCPT commands at the beginning of what
// is buffered, at most limit of them. What is not plain is left to its turn.
func pipelinedRcpts(buffered []byte, limit int) []string {
	var rcpts []string
	for len(rcpts) < limit {
		line, rest, complete := bytes.Cut(buffered, []byte{'\n'})
		const command = "RCPT TO:<"
		if !complete || len(line) < len(command) || !bytes.EqualFold(line[:len(command)], []byte(command)) {
			return rcpts
		}
		path, _, ok := bytes.Cut(line[len(command):], []byte{'>'})
		if !ok || bytes.ContainsAny(path, `"\:`) {
			return rcpts
		}
		rcpts = append(rcpts, string(path))
		buffered = rest
	}
	return rcpts
}
