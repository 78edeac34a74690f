package smtpd

import (
	"bytes"
	"strings"
)

// maxReceived is the number of Received fields beyond which a message is held to
// loop (RFC 5321 section 6.3).
const maxReceived = 100

// header reads a message's header section as it passes, line by line, and gets
// out of the way where the body begins.
type header struct {
	out        func([]byte) // takes what goes on
	submission bool         // the client is a user's program: complete its header
	missing    func(date, messageID bool) []byte

	partial   []byte // a line whose end has not come yet
	fields    bool   // a field was seen
	drop      bool   // continuation lines of a removed field go with it
	body      bool   // the header section is over
	received  int
	date      bool
	messageID bool
	keptID    []byte // value of Message-ID, while inID with what continues it
	inID      bool
	tls       []byte // value of TLS-Required, while inTLS with what continues it
	inTLS     bool
	tlsFields int
}

// maxTLSRequired bounds what is kept of a TLS-Required field, in bytes.
const maxTLSRequired = 64

// take passes a piece of the message on.
func (h *header) take(p []byte) {
	for !h.body && len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			h.partial = append(h.partial, p...)
			return
		}
		line := p[:i+1]
		if len(h.partial) > 0 {
			h.partial = append(h.partial, line...)
			line = h.partial
		}
		h.line(line)
		h.partial = h.partial[:0]
		p = p[i+1:]
	}
	if len(p) > 0 {
		h.out(p)
	}
}

// end completes a message that has no body.
func (h *header) end() {
	if len(h.partial) > 0 {
		h.line(h.partial)
		h.partial = nil
	}
	if !h.body {
		h.finish()
	}
}

// line looks at one line of the header section (RFC 5322 section 2.2).
func (h *header) line(b []byte) {
	switch {
	case len(b) <= 2:
		h.finish()
		h.out(b)
	case h.fields && (b[0] == ' ' || b[0] == '\t'):
		h.keepTLS(b)
		h.keepID(b)
		if !h.drop {
			h.out(b)
		}
	default:
		h.field(b)
	}
}

func (h *header) field(b []byte) {
	name := fieldName(b)
	if name == nil {
		// The body begins without the empty line. Our own fields stand before
		// it: only with that line do they stay fields.
		h.finish()
		h.out([]byte("\r\n"))
		h.out(b)
		return
	}
	h.fields, h.drop, h.inTLS, h.inID = true, false, false, false
	switch {
	case is(name, "Received"):
		h.received++
	case is(name, "Date"):
		h.date = true
	case is(name, "Message-ID"):
		h.inID = !h.messageID
		h.messageID = true
		h.keepID(b[bytes.IndexByte(b, ':')+1:])
	case is(name, "TLS-Required"):
		h.inTLS = true
		h.tlsFields++
		h.keepTLS(b[bytes.IndexByte(b, ':')+1:])
	case is(name, "Bcc"):
		// Nobody may learn who got a blind copy; the envelope knows already.
		h.drop = h.submission
	}
	if !h.drop {
		h.out(b)
	}
}

// finish ends the header section with the fields that a submitted message must
// have (RFC 6409 section 8).
func (h *header) finish() {
	h.body = true
	if h.submission && !(h.date && h.messageID) {
		h.out(h.missing(h.date, h.messageID))
	}
}

func (h *header) keepTLS(b []byte) {
	if h.inTLS {
		h.tls = append(h.tls, b[:min(len(b), maxTLSRequired-len(h.tls))]...)
	}
}

// maxMessageID bounds what is kept of a Message-ID field, in bytes.
const maxMessageID = 256

func (h *header) keepID(b []byte) {
	if h.inID {
		h.keptID = append(h.keptID, b[:min(len(b), maxMessageID-len(h.keptID))]...)
	}
}

// id is the value of Message-ID without its brackets, or empty.
func (h *header) id() string {
	return string(bytes.Trim(bytes.TrimSpace(h.keptID), "<>"))
}

// tlsOptional reports whether the sender would rather have the message arrive
// without TLS than not at all: one field TLS-Required that says "No" (RFC 8689
// section 3). Two say nothing, for there must not be two.
func (h *header) tlsOptional() bool {
	return h.tlsFields == 1 && bytes.EqualFold(bytes.TrimSpace(h.tls), []byte("No"))
}

func is(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// fieldName returns a field's name, or nil when the line is none. Blanks before
// the colon are allowed as obsolete syntax does (RFC 5322 section 4.5).
func fieldName(b []byte) []byte {
	i := bytes.IndexByte(b, ':')
	if i <= 0 {
		return nil
	}
	name := bytes.TrimRight(b[:i], " \t")
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return nil
		}
	}
	if len(name) == 0 {
		return nil
	}
	return name
}
