package smtpd

import (
	"strconv"
	"strings"
	"time"

	"tabard/internal/address"
)

// receivedTime is RFC 5322's date with the zone's name as a comment.
const receivedTime = "Mon, 2 Jan 2006 15:04:05 -0700 (MST)"

// received appends the trace field of RFC 5321 section 4.4 for a message.
func (s *session) received(buf []byte, tx *transaction, id string, now time.Time) []byte {
	c := s.c
	buf = append(buf, "Received: "...)
	if !c.ln.MaskSource {
		buf = s.from(buf, tx.options.UTF8)
	}
	buf = append(buf, "by "...)
	buf = append(buf, c.hostname()...)
	buf = append(buf, " (Tabard) with "...)
	buf = append(buf, s.protocol(tx)...)
	buf = append(buf, " id "...)
	buf = append(buf, id...)
	if c.tls != nil {
		// The verdict is on the client's certificate, and it is what lookup said.
		buf = append(buf, " ("...)
		buf = append(buf, cipherText(c.tls.ConnectionState())...)
		buf = append(buf, ':')
		buf = append(buf, s.cert.verdict.State.String()...)
		buf = append(buf, ')')
	}
	if c.ln.ReceivedAuth && s.user != "" {
		buf = append(buf, "\r\n\t(auth=yes user="...)
		buf = append(buf, comment(s.user)...)
		buf = append(buf, ')')
	}
	if tx.wishes.ranked { // RFC 6710
		buf = append(buf, " PRIORITY "...)
		buf = strconv.AppendInt(buf, int64(tx.wishes.priority), 10)
	}
	if len(tx.rcpts) == 1 { // with more, it would tell each about the others
		buf = append(buf, "\r\n\tfor <"...)
		buf = append(buf, tx.rcpts[0]...)
		buf = append(buf, '>')
	}
	buf = append(buf, ";\r\n\t"...)
	buf = now.UTC().AppendFormat(buf, receivedTime)
	return append(buf, '\r', '\n')
}

// from appends the client's own name, what DNS says and its address.
func (s *session) from(buf []byte, utf8 bool) []byte {
	p := &s.c.peer
	buf = append(buf, "from "...)
	buf = append(buf, hostWord(s.helo, utf8)...)
	buf = append(buf, " ("...)
	buf = append(buf, hostWord(s.c.rdns(), utf8)...)
	buf = append(buf, " ["...)
	if !p.socket && p.remote.Addr().Is6() {
		buf = append(buf, "IPv6:"...)
	}
	buf = append(buf, p.text()...)
	return append(buf, "])\r\n\t"...)
}

// protocol is the `with` keyword (RFC 3848, RFC 6531 section 4.3).
func (s *session) protocol(tx *transaction) string {
	if !s.extended {
		return "SMTP"
	}
	word := "ESMTP"
	if tx.options.UTF8 {
		word = "UTF8SMTP"
	}
	if s.c.tls != nil {
		word += "S"
	}
	if s.user != "" {
		word += "A"
	}
	return word
}

// hostWord makes a name from a stranger safe inside Received: letters, digits
// and what host names and literals are made of; anything else becomes '?'.
func hostWord(name string, utf8 bool) string {
	if name == unknownName {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		case strings.ContainsRune("-._:[]", r), utf8 && r >= 0x80:
			return r
		}
		return '?'
	}, name)
}

// comment makes text safe inside parentheses (RFC 5322 section 3.2.2).
func comment(s string) string {
	return strings.NewReplacer("\\", "\\\\", "(", "\\(", ")", "\\)").Replace(address.OneLine(s, 255))
}
