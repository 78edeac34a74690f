package smtpd

import (
	"strings"

	"tabard/internal/address"
)

// Longest lines, in bytes with their end. RFC 5321 section 4.5.3.1.4 asks for
// 512 and more for each extension; RFC 4954 section 4 for 12,288 with AUTH.
const (
	maxCommand = 4096
	maxSASL    = 12288
	maxHelo    = 255
)

// dispatch decides what becomes of one command line: it is answered here, or it
// goes on to go-smtp, cleaned. Everything that depends on the order of commands
// is decided here, because go-smtp does not know of STARTTLS and BDAT.
func (s *session) dispatch(raw []byte) {
	c := s.c
	line := cutLineEnd(raw)
	v, word, arg := splitCommand(line)
	c.verb = v
	c.command = append(c.command[:0], line...)
	switch {
	case len(raw) > maxSASL || len(raw) > maxCommand && v != verbAuth:
		c.tooLong()
		return
	case hasControl(line):
		c.verb = verbUnknown
		c.reply(500, "5.5.2", "Syntax error: control character in command")
		return
	}
	if v == verbRcpt {
		arg = s.qualify(arg)
	}
	if s.ours(v, arg) {
		return
	}
	if v == verbMail {
		rest, e := s.takeWishes(arg)
		if e != nil {
			c.answer(e)
			return
		}
		arg = rest
	}
	s.pass(word, arg)
}

// pass hands a command to go-smtp.
func (s *session) pass(word, arg string) {
	c := s.c
	buf := append(c.given[:0], word...)
	if arg != "" {
		buf = append(buf, ' ')
		buf = append(buf, arg...)
	}
	c.give(append(buf, '\r', '\n'))
}

// qualify gives the one address without a domain, which every server must
// accept (RFC 5321 section 4.1.1.3), ours: go-smtp does not know it.
func (s *session) qualify(arg string) string {
	const postmaster = "TO:<postmaster>"
	if len(arg) < len(postmaster) || !strings.EqualFold(arg[:len(postmaster)], postmaster) {
		return arg
	}
	return arg[:len(postmaster)-1] + "@" + s.c.hostname() + arg[len(postmaster)-1:]
}

// ours answers the commands that go-smtp must not see, and those that come at
// the wrong time; false means that go-smtp goes on.
func (s *session) ours(v verb, arg string) bool {
	c := s.c
	switch v {
	case verbRset, verbNoop, verbQuit, verbVrfy:
		return false
	case verbHelo, verbEhlo:
		return !s.hello(v, arg)
	case verbMail, verbRcpt, verbData, verbAuth:
		return s.outOfOrder(v)
	case verbStartTLS:
		s.startTLS(arg)
	case verbBdat:
		s.bdat(arg)
	case verbHelp:
		c.put("214 2.0.0 This is Tabard, see RFC 5321 for the commands")
	case verbExpn:
		c.reply(502, "5.5.1", "EXPN not implemented")
	case verbHTTP:
		c.hangup("not SMTP")
		c.reply(554, "5.5.0", "This is not an HTTP server")
	default:
		c.reply(500, "5.5.1", "Invalid command: Command unrecognized")
	}
	return true
}

// hello notes the client's name; false means that it was refused.
func (s *session) hello(v verb, arg string) bool {
	name, _, _ := strings.Cut(arg, " ")
	if name == "" || len(name) > maxHelo || address.OneLine(name, maxHelo+4) != name {
		s.c.reply(501, "5.5.4", "HELO requires a domain or address literal")
		return false
	}
	s.helo, s.extended = name, v == verbEhlo
	return true
}

// outOfOrder refuses commands that must come later, with 503 as RFC 5321
// section 4.1.4 says.
func (s *session) outOfOrder(v verb) bool {
	c, tx := s.c, s.tx
	switch {
	case s.helo == "":
		c.reply(503, "5.5.1", "Please say EHLO or HELO first")
	case tx != nil && tx.msg != nil:
		c.reply(503, "5.5.1", "Not allowed during a BDAT transfer")
	case v == verbMail && tx != nil:
		c.reply(503, "5.5.1", "Nested MAIL command")
	case v == verbRcpt && tx == nil:
		c.reply(503, "5.5.1", "Need MAIL before RCPT")
	case v == verbData:
		return s.noRecipients("DATA")
	case v == verbAuth:
		return s.noAuth()
	default:
		return false
	}
	return true
}

// noRecipients refuses to take a message for nobody.
func (s *session) noRecipients(what string) bool {
	switch tx := s.tx; {
	case tx == nil:
		s.c.reply(503, "5.5.1", "Need MAIL before "+what)
	case len(tx.envelopes) > 0:
		return false
	case tx.refused > 0:
		s.c.reply(554, "5.5.1", "No valid recipients")
	default:
		s.c.reply(503, "5.5.1", "Need RCPT before "+what)
	}
	return true
}

// tooLong ends a session whose line has no end in sight: where it would end is
// not worth finding out.
func (c *conn) tooLong() {
	c.command = c.command[:0]
	c.hangup("line too long")
	c.reply(500, "5.5.2", "Line too long")
}

// saslLine passes the client's response to a challenge.
func (c *conn) saslLine(raw []byte) {
	line := cutLineEnd(raw)
	if len(raw) > maxSASL || hasControl(line) {
		c.tooLong()
		return
	}
	c.give(append(append(c.given[:0], line...), '\r', '\n'))
}
