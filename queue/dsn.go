package queue

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/lookup"
)

// dsn is a report to a sender: multipart/report of RFC 3462 with a status of RFC
// 3464, or in the form of RFC 6533 when the message needed SMTPUTF8.
type dsn struct {
	hostname string
	id       MessageID
	date     time.Time
	message  *Message
	items    []*item   // with a note each, all of one kind
	original io.Reader // nil: it cannot be had
}

// maxLine is what RFC 5322 section 2.1.1 wants lines to keep below.
const maxLine = 76

// submission is the envelope of the report. Its reverse-path is null, and
// nobody wants to know what becomes of it.
func (d *dsn) submission(targets []lookup.Target) Submission {
	s := Submission{Message: Message{
		ID: d.id, UTF8: d.message.UTF8, EightBit: d.eightBit(), Session: d.message.Session,
		RequireTLS: d.message.RequireTLS, // RFC 8689 section 5: it tells of the message
	}}
	for _, t := range targets {
		s.Recipients = append(s.Recipients, Envelope{
			Address: t.Address, Recipient: d.message.Sender, Notify: "NEVER",
			Action: t.Action, Relay: t.Relay, User: t.User,
		})
	}
	return s
}

func (d *dsn) kind() string { return d.items[0].note.Kind }

// full reports whether the whole message goes back: only with a failure, and
// only when it was asked for (RFC 3461 section 4.3), and never one with REQUIRETLS,
// whose report may travel without (RFC 8689 section 5).
func (d *dsn) full() bool {
	return d.message.Ret == "FULL" && d.kind() == kindFailed && !d.message.RequireTLS
}

func (d *dsn) eightBit() bool { return d.message.UTF8 || d.message.EightBit && d.original != nil }

// out writes lines with CRLF, and keeps the first error.
type out struct {
	w    *bufio.Writer
	utf8 bool
	err  error
}

// line writes one line of our own making. Text from strangers in it has been
// through field or para.
func (o *out) line(format string, args ...any) {
	if o.err == nil {
		_, o.err = fmt.Fprintf(o.w, format+"\r\n", args...)
	}
}

// clean makes a stranger's text fit for one line of this report.
func (o *out) clean(s string) string {
	s = address.OneLine(s, maxNoticeText)
	if o.utf8 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, s)
}

// field writes a header field, folded at blanks. A word that is longer than a
// line is left whole: no field may be cut.
func (o *out) field(name, value string) {
	line := name + ":"
	for _, word := range strings.Fields(o.clean(value)) {
		if len(line)+1+len(word) > maxLine && line != name+":" {
			o.line("%s", line)
			line = ""
		}
		line += " " + word
	}
	o.line("%s", line)
}

// para writes text for people, wrapped and indented.
func (o *out) para(indent, text string) {
	line := indent
	for _, word := range strings.Fields(o.clean(text)) {
		if len(line)+1+len(word) > maxLine && line != indent {
			o.line("%s", line)
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	o.line("%s", line)
}

// write writes the report.
func (d *dsn) write(w io.Writer) error {
	o := &out{w: bufio.NewWriter(w), utf8: d.message.UTF8}
	boundary := fmt.Sprintf("%s.%016x", d.id, rand.Uint64())
	d.header(o, boundary)
	o.line("--%s", boundary)
	d.text(o)
	o.line("--%s", boundary)
	d.status(o)
	if d.original != nil {
		o.line("--%s", boundary)
		d.returned(o)
	}
	o.line("--%s--", boundary)
	return errors.Join(o.err, o.w.Flush())
}

func (d *dsn) header(o *out, boundary string) {
	o.field("Date", d.date.Format(time.RFC1123Z))
	o.field("From", "Mail Delivery System <MAILER-DAEMON@"+d.hostname+">")
	o.field("To", "<"+d.message.Sender+">")
	o.field("Subject", subject(d.kind()))
	o.field("Message-ID", "<"+d.id.String()+".bounce@"+d.hostname+">")
	o.field("Auto-Submitted", "auto-replied")
	o.line("MIME-Version: 1.0")
	o.line("Content-Type: multipart/report; report-type=%s;", d.pick("delivery-status", "global-delivery-status"))
	o.line("\tboundary=%q", boundary)
	if d.eightBit() {
		o.line("Content-Transfer-Encoding: 8bit")
	}
	o.line("")
	o.line("This is a report in MIME format.")
	o.line("")
}

// pick chooses between the forms of RFC 3464 and RFC 6533.
func (d *dsn) pick(plain, global string) string {
	if d.message.UTF8 {
		return global
	}
	return plain
}

func subject(kind string) string {
	switch kind {
	case kindFailed:
		return "Undelivered mail returned to sender"
	case kindDelayed:
		return "Delayed mail (still being retried)"
	}
	return "Successful mail delivery report"
}

func intro(kind string) string {
	switch kind {
	case kindFailed:
		return "Your message could not be delivered to the recipients below. It will not be tried again."
	case kindDelayed:
		return "Your message has not been delivered yet to the recipients below. You need not send it again: it will be tried further."
	}
	return "Your message was delivered to the recipients below, or handed to a server that sends no such reports."
}

// text is the part for people.
func (d *dsn) text(o *out) {
	o.line("Content-Type: text/plain; charset=%s", d.pick("us-ascii", "utf-8"))
	if d.message.UTF8 {
		o.line("Content-Transfer-Encoding: 8bit")
	}
	o.line("")
	o.line("This is the mail system at %s.", d.hostname)
	o.line("")
	o.para("", intro(d.kind()))
	for _, it := range d.items {
		o.line("")
		o.para("  ", "<"+shown(&it.env)+">:")
		if t := noticeText(it.note); t != "" {
			if it.note.Remote != "" {
				t = it.note.Remote + " said: " + t
			}
			o.para("    ", t)
		}
		if it.note.Kind == kindDelayed {
			o.para("    ", "It will be tried until "+it.env.Expires.Format(time.RFC1123Z)+".")
		}
	}
	o.line("")
}

// shown is the recipient as the sender knows it.
func shown(e *Envelope) string {
	if e.Recipient != "" {
		return e.Recipient
	}
	return e.Address
}

// status is the part for programs.
func (d *dsn) status(o *out) {
	o.line("Content-Type: message/%s", d.pick("delivery-status", "global-delivery-status"))
	if d.message.UTF8 {
		o.line("Content-Transfer-Encoding: 8bit")
	}
	o.line("")
	if d.message.EnvID != "" {
		o.field("Original-Envelope-Id", d.message.EnvID)
	}
	o.field("Reporting-MTA", "dns; "+d.hostname)
	o.field("Arrival-Date", d.message.Created.Format(time.RFC1123Z))
	for _, it := range d.items {
		o.line("")
		recipientFields(o, it)
	}
	o.line("")
}

func recipientFields(o *out, it *item) {
	n := it.note
	if it.env.ORCPT != "" {
		o.field("Original-Recipient", originalRecipient(o, it.env.ORCPT))
	}
	o.field("Final-Recipient", recipient(o, it.env.Address))
	o.field("Action", n.Kind)
	o.field("Status", statusOf(n))
	if n.Remote != "" {
		o.field("Remote-MTA", "dns; "+n.Remote)
	}
	switch {
	case n.Code != 0:
		o.field("Diagnostic-Code", "smtp; "+noticeText(n))
	case n.Text != "":
		o.field("Diagnostic-Code", "x-tabard; "+noticeText(n))
	}
	o.field("Last-Attempt-Date", n.At.Format(time.RFC1123Z))
	if n.Kind == kindDelayed {
		o.field("Will-Retry-Until", it.env.Expires.Format(time.RFC1123Z))
	}
}

// statusOf is the enhanced code of a notice, which must agree with its kind
// (RFC 3464 section 2.3.4): a stranger's need not.
func statusOf(n *notice) string {
	classes, fallback := "45", "5.0.0"
	switch n.Kind {
	case kindDelayed:
		classes, fallback = "4", "4.0.0"
	case kindDelivered, kindRelayed:
		classes, fallback = "2", "2.0.0"
	}
	if !validStatus(n.Enhanced) || !strings.Contains(classes, n.Enhanced[:1]) {
		return fallback
	}
	return n.Enhanced
}

// validStatus reports whether s is a code of RFC 3463 section 2.
func validStatus(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 {
		return false
	}
	for _, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// recipient writes an address with its type (RFC 3464 section 2.3.2, RFC 6533
// section 3).
func recipient(o *out, addr string) string {
	if address.ASCII(addr) {
		return "rfc822; " + addr
	}
	return "utf-8; " + utf8Addr(o, addr)
}

// originalRecipient writes an ORCPT value. One without a type is of ours.
func originalRecipient(o *out, orcpt string) string {
	kind, addr, ok := strings.Cut(orcpt, ";")
	if !ok {
		return recipient(o, orcpt)
	}
	return strings.TrimSpace(kind) + "; " + utf8Addr(o, strings.TrimSpace(addr))
}

// utf8Addr is an address as it is, or as utf-8-addr-xtext where only ASCII may
// stand (RFC 6533 section 3).
func utf8Addr(o *out, addr string) string {
	if o.utf8 || address.ASCII(addr) {
		return addr
	}
	var b strings.Builder
	for _, r := range addr {
		if r <= '~' && r > ' ' && r != '\\' && r != '+' && r != '=' {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, `\x{%X}`, r)
	}
	return b.String()
}

// returned is the part with the original message, or its header.
func (d *dsn) returned(o *out) {
	switch {
	case d.full():
		o.line("Content-Type: message/%s", d.pick("rfc822", "global"))
	default:
		o.line("Content-Type: %s", d.pick("text/rfc822-headers", "message/global-headers"))
	}
	if d.eightBit() {
		o.line("Content-Transfer-Encoding: 8bit")
	}
	o.line("")
	if o.err != nil {
		return
	}
	if d.full() {
		_, o.err = io.Copy(o.w, d.original)
	} else {
		o.err = copyHeader(o.w, d.original)
	}
	o.line("")
}

// maxHeader bounds the header that goes back, in bytes.
const maxHeader = 256 << 10

// copyHeader copies lines up to the first empty one.
func copyHeader(w *bufio.Writer, r io.Reader) error {
	in := bufio.NewReader(io.LimitReader(r, maxHeader))
	start := true
	for {
		line, err := in.ReadSlice('\n')
		if start && (string(line) == "\r\n" || len(line) == 0) {
			return nil
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		start = err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil // the end of a message without a body
		}
	}
}
