package smtpd

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// Data takes a message. go-smtp's reader is left alone: content comes from the
// connection's own buffer, and go-smtp gets its end of data from there, too.
func (s *session) Data(io.Reader) error {
	c, tx := s.c, s.tx
	if tx == nil || len(tx.envelopes) == 0 {
		return refuse(503, smtp.EnhancedCode{5, 5, 1}, "Need RCPT before DATA")
	}
	c.beginMessage()
	_, _ = c.br.Peek(1) // what is there then is often the whole; an error comes again
	m := s.begin(tx, int64(c.br.Buffered()))
	err := c.receive(m)
	c.give([]byte(".\r\n"))
	if err != nil {
		m.abort()
		e := s.brokenOff(err)
		c.swallow = e.Code == 421 // fail has said what there is to say
		return e
	}
	return m.finish()
}

// receive feeds the connection's input to a message until the end of data.
func (c *conn) receive(m *incoming) error {
	sc := scanner{dots: true, normalize: c.ln.NormalizeBareNewline}
	for {
		if b, _ := c.br.Peek(c.br.Buffered()); len(b) > 0 {
			n, done, err := sc.scan(b, m)
			_, _ = c.br.Discard(n)
			if sc.long {
				m.fail(lineTooLong())
			}
			if done || err != nil {
				return err
			}
			if m.overrun() {
				return errOverrun
			}
		}
		if _, err := c.br.Peek(c.br.Buffered() + 1); err != nil {
			return err
		}
	}
}

// beginMessage starts the clocks of a message, or of a chunk of one.
func (c *conn) beginMessage() {
	c.phase, c.before = phaseMessage, time.Now().Add(c.srv.cfg.Timeouts.Message)
}

var errOverrun = errors.New("message far beyond the maximum size")

func lineTooLong() *smtp.SMTPError {
	return refuse(554, smtp.EnhancedCode{5, 6, 0}, "Line longer than "+strconv.Itoa(maxLine)+" bytes in message data")
}

// brokenOff ends a session in the middle of a message: what follows is not
// looked at.
func (s *session) brokenOff(err error) *smtp.SMTPError {
	switch {
	case errors.Is(err, errOverrun):
		s.c.hangup("message too large")
		return refuse(552, smtp.EnhancedCode{5, 3, 4}, "Message exceeds the maximum size")
	case errors.Is(err, errBareCR), errors.Is(err, errBareLF), errors.Is(err, errNUL):
		s.c.hangup(err.Error())
		return refuse(554, smtp.EnhancedCode{5, 6, 0}, strings.ToUpper(err.Error()[:1])+err.Error()[1:]+" (RFC 5321 section 2.3.8)")
	}
	s.c.fail(err)
	return refuse(421, smtp.EnhancedCode{4, 4, 2}, "Connection lost")
}
