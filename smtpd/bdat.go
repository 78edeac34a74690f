package smtpd

import (
	"strconv"
	"strings"
)

// bdat takes one chunk of a message (RFC 3030). go-smtp does not see it: its way
// would run the message in a second goroutine, beside commands that reset the
// transaction.
func (s *session) bdat(arg string) {
	c := s.c
	size, last, ok := parseChunk(arg)
	if !ok {
		// How long the chunk is cannot be known, so where the next command is
		// cannot, either.
		c.hangup("malformed BDAT")
		c.reply(501, "5.5.4", "Malformed BDAT argument")
		return
	}
	if size > 2*s.srv.cfg.MaxMessageSize+1<<20 {
		c.hangup("message too large")
		c.reply(552, "5.3.4", "Message exceeds the maximum size")
		return
	}
	c.beginMessage()
	if s.helo == "" || s.tx == nil || len(s.tx.envelopes) == 0 {
		if err := c.skip(size); err != nil {
			c.fail(err)
			return
		}
		s.noRecipients("BDAT")
		return
	}
	if s.tx.msg == nil {
		s.tx.msg = s.begin(s.tx, size)
		s.tx.msg.chunks.normalize = c.ln.NormalizeBareNewline
	}
	s.chunk(s.tx.msg, size, last)
}

// parseChunk reads "SIZE" or "SIZE LAST".
func parseChunk(arg string) (size int64, last, ok bool) {
	number, rest, more := strings.Cut(arg, " ")
	if more {
		last = strings.EqualFold(strings.TrimSpace(rest), "LAST")
		if !last {
			return 0, false, false
		}
	}
	n, err := strconv.ParseUint(number, 10, 62)
	return int64(n), last, err == nil
}

// chunk adds one chunk and answers it.
func (s *session) chunk(m *incoming, size int64, last bool) {
	c := s.c
	err := c.readChunk(size, m)
	if err == nil && last {
		err = m.chunks.end(m)
	}
	switch {
	case err != nil:
		if e := s.brokenOff(err); e.Code != 421 {
			c.answer(e)
		}
		return
	case m.overrun():
		c.answer(s.brokenOff(errOverrun))
		return
	case m.fault != nil:
		c.answer(m.fault)
	case last:
		c.answer(m.finish())
	default:
		c.put("250 2.0.0 " + strconv.FormatInt(size, 10) + " bytes received")
		return
	}
	// The transaction is over, whether it went well or not. go-smtp learns it
	// from a command that the client did not send.
	c.give([]byte("RSET\r\n"))
	c.swallow = true
}

// readChunk gives the next size bytes to a message.
func (c *conn) readChunk(size int64, m *incoming) error {
	for size > 0 {
		b, err := c.some(size)
		if err != nil {
			return err
		}
		err = m.chunks.add(b, m)
		_, _ = c.br.Discard(len(b))
		if err != nil {
			return err
		}
		if m.chunks.long {
			m.fail(lineTooLong())
		}
		size -= int64(len(b))
	}
	return nil
}

// skip reads a chunk that nobody wants: it follows its command even when the
// command is refused (RFC 3030 section 2).
func (c *conn) skip(size int64) error {
	for size > 0 {
		b, err := c.some(size)
		if err != nil {
			return err
		}
		size -= int64(len(b))
		_, _ = c.br.Discard(len(b))
	}
	return nil
}

// some returns between 1 and limit bytes of input, not yet discarded.
func (c *conn) some(limit int64) ([]byte, error) {
	if c.br.Buffered() == 0 {
		if _, err := c.br.Peek(1); err != nil {
			return nil, err
		}
	}
	return c.br.Peek(int(min(limit, int64(c.br.Buffered()))))
}
