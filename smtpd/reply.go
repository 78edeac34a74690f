package smtpd

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/address"
)

// tooManyRcpt is how go-smtp begins the refusal of a recipient above the limit. It
// is not the client's error: RFC 5321 section 4.5.3.1.10 has it send the message to
// those that were taken. As many as the limit allows are forgiven, so that a client
// that pipelines a long list gets its message through.
const tooManyRcpt = "452 4.5.3 "

const maxReplyText = 400 // bytes; RFC 5321 section 4.5.3.1.5 allows 512 for the line

// refuse makes a reply that go-smtp sends as it is.
func refuse(code int, enhanced smtp.EnhancedCode, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: address.OneLine(text, maxReplyText)}
}

// Write takes go-smtp's replies, one or more whole lines.
func (c *conn) Write(p []byte) (int, error) {
	if c.verb == verbConnect && c.reason == "" && !c.open() {
		return len(p), nil
	}
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			i = len(rest) - 1
		}
		c.rewrite(rest[:i+1])
		rest = rest[i+1:]
	}
	if len(c.out) > maxReplies {
		c.flush()
	}
	return len(p), nil
}

// open does what comes before the banner: TLS where it is implicit.
func (c *conn) open() bool {
	if !c.implicitTLS() {
		return true
	}
	return c.handshake()
}

// rewrite puts one of go-smtp's reply lines into c.out, in the field's words
// and with RFC 5321's codes.
func (c *conn) rewrite(line []byte) {
	text := strings.TrimRight(string(line), "\r\n")
	if len(text) < 4 {
		return
	}
	last := text[3] == ' '
	if c.swallow {
		c.swallow = !last
		return
	}
	switch code := text[:3]; {
	case code == "334":
		c.challenge = true
	case code == "354":
		text = `354 Enter mail, end with "." on a line by itself`
	case code == "220" && c.verb == verbConnect:
		text = c.banner()
	case code == "250":
		text = c.accepted(text)
	case last:
		text = fixedText(text)
	}
	c.put(text)
	if last {
		c.replied(text)
	}
}

func (c *conn) put(text string) {
	c.out = append(c.out, text...)
	c.out = append(c.out, '\r', '\n')
}

// banner is the first line (RFC 5321 section 4.2: the domain comes first).
func (c *conn) banner() string { return "220 " + c.hostname() + " ESMTP Tabard" }

// accepted rewrites the 250 of the command in hand.
func (c *conn) accepted(text string) string {
	switch c.verb {
	case verbMail:
		return "250 2.1.0 Ok"
	case verbRcpt:
		return "250 2.1.5 Destination address valid: Recipient ok"
	case verbRset:
		return "250 2.0.0 Reset state"
	case verbNoop:
		return "250 2.0.0 Ok"
	case verbHelo:
		return "250 " + c.greeting()
	case verbEhlo:
		return c.capability(text)
	}
	return text
}

// greeting begins with our own name, as RFC 5321 section 4.1.1.1 demands.
func (c *conn) greeting() string {
	return c.hostname() + " Hello " + c.sess.helo + " [" + c.peer.text() + "], pleased to meet you"
}

// capability adds to go-smtp's EHLO reply what the connection does itself:
// STARTTLS, REQUIRETLS, what may be asked of the schedule, and the other limit of RFC
// 9422.
func (c *conn) capability(text string) string {
	switch {
	case strings.HasPrefix(text[4:], "Hello "):
		return text[:4] + c.greeting()
	case strings.HasPrefix(text[4:], "LIMITS "):
		if c.offersTLS() {
			c.put("250-STARTTLS")
		}
		if c.tls != nil {
			c.put("250-REQUIRETLS") // RFC 8689 section 2
		}
		for _, line := range c.sess.wishLines(time.Now()) {
			c.put("250-" + line)
		}
		return text + " MAILMAX=" + strconv.Itoa(c.srv.cfg.MaxMails)
	}
	return text
}

// fixedText corrects go-smtp's codes where RFC 5321, 4954 or 3461 say otherwise.
func fixedText(text string) string {
	switch text {
	case "500 5.5.4 Unknown MAIL FROM argument":
		return "555 5.5.4 Unsupported MAIL parameter"
	case "500 5.5.4 Unknown RCPT TO argument":
		return "555 5.5.4 Unsupported RCPT parameter"
	case "500 5.5.4 Malformed AUTH parameter value", "500 5.5.4 Malformed AUTH parameter mailbox":
		return "501 5.5.4 Malformed AUTH parameter"
	case "454 4.7.0 Invalid base64 data":
		return "501 5.5.2 Invalid base64 data"
	case "502 5.5.4 Missing parameter":
		return "501 5.5.4 Missing mechanism"
	case "501 5.0.0 Negotiation cancelled":
		return "501 5.7.0 Authentication cancelled"
	case "235 2.0.0 Authentication succeeded":
		return "235 2.7.0 Authentication succeeded"
	}
	return text
}

// reply is an answer of our own, without go-smtp.
func (c *conn) reply(code int, enhanced, text string) {
	line := strconv.Itoa(code) + " " + enhanced + " " + address.OneLine(text, maxReplyText)
	c.put(line)
	c.replied(line)
}

// answer sends an error of the session, for commands that the connection
// handles itself.
func (c *conn) answer(e *smtp.SMTPError) {
	ec := e.EnhancedCode
	c.reply(e.Code, strconv.Itoa(ec[0])+"."+strconv.Itoa(ec[1])+"."+strconv.Itoa(ec[2]), e.Message)
}

// replied does the accounts after the last line of a reply: refusals are logged
// and counted, and a session with too many, or with a 421, ends.
func (c *conn) replied(line string) {
	if line[0] != '4' && line[0] != '5' {
		return
	}
	c.srv.count.refusals.Add(1, line[:1]+"xx")
	closing := c.reason != ""
	if strings.HasPrefix(line, "421 ") {
		c.hangup("refused: " + line)
	}
	if len(c.command) > 0 {
		c.event("smtp failed-command", slog.String("command", c.loggable()), slog.String("result", line))
		c.recordRefusal(line)
	} else {
		c.event("smtp bad-input", slog.String("result", line))
	}
	if strings.HasPrefix(line, tooManyRcpt) && c.overshot < c.srv.cfg.MaxRcpt {
		c.overshot++
		return
	}
	if c.errors++; c.errors >= c.srv.cfg.MaxErrors && !closing {
		c.hangup("too many errors")
		c.put("421 4.7.0 Too many errors")
	}
}

// loggable is the command in hand without secrets.
func (c *conn) loggable() string {
	if c.verb == verbAuth {
		return "AUTH ***"
	}
	return address.OneLine(string(c.command), 512)
}
