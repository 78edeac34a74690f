package queue

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime/quotedprintable"
	"time"

	"tabard/internal/address"
	"tabard/lookup"
)

// dsn is a report to a sender: multipart/report of RFC 6522 with a status of RFC
// 3464, or in the form of RFC 6533 when the message needed SMTPUTF8.
//
// It needs SMTPUTF8 itself only when the sender's address does. To a sender in
// ASCII the parts that are not go encoded, so that no server on the way back can
// refuse the report for that.
type dsn struct {
	hostname string
	id       MessageID
	date     time.Time
	message  *Message
	items    []*item   // with a note each, all of one kind, or all of success
	original *original // nil: it cannot be had
	boundary string
}

func newDSN(m *Message, items []*item) *dsn {
	return &dsn{message: m, items: items, boundary: fmt.Sprintf("%s.%016x", m.ID, rand.Uint64())}
}

// submission is the envelope of the report. Its reverse-path is null, and
// nobody wants to know what becomes of it.
func (d *dsn) submission(targets []lookup.Target) Submission {
	s := Submission{Message: Message{
		ID: d.id, UTF8: d.raw(), EightBit: d.eightBit(), Session: d.message.Session,
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

// whole reports whether all of the message is to go back: only with a failure, and
// only when it was asked for (RFC 3461 section 4.3), and never one with REQUIRETLS,
// whose report may travel without (RFC 8689 section 5).
func (d *dsn) whole() bool {
	return d.message.Ret == "FULL" && d.kind() == kindFailed && !d.message.RequireTLS
}

// global reports whether the types of RFC 6533 are due.
func (d *dsn) global() bool { return d.message.UTF8 || d.raw() }

// raw reports whether the report needs SMTPUTF8, and so may be UTF-8 everywhere.
func (d *dsn) raw() bool { return !address.ASCII(d.message.Sender) }

// pick chooses between the forms of RFC 3464 and RFC 6533.
func (d *dsn) pick(plain, global string) string {
	if d.global() {
		return global
	}
	return plain
}

func (d *dsn) eightBit() bool {
	return d.raw() || d.original != nil && d.encoding(d.original.eightBit, d.encodable()) == "8bit"
}

// encodable reports whether the part with the original may be encoded. RFC 2046
// section 5.2.1 forbids it for message/rfc822 alone.
func (d *dsn) encodable() bool { return d.global() || !d.original.full }

// encoding is the Content-Transfer-Encoding of a part; empty: 7bit.
func (d *dsn) encoding(eightBit, encodable bool) string {
	switch {
	case !eightBit:
		return ""
	case d.raw() || !encodable:
		return "8bit"
	}
	return "quoted-printable"
}

// write writes the report.
func (d *dsn) write(w io.Writer) error {
	o := &out{w: bufio.NewWriter(w), utf8: d.raw()}
	d.header(o)
	d.part(o, "text/plain", "Notification", true, d.text)
	d.part(o, d.pick("message/delivery-status", "message/global-delivery-status"), "Delivery report", d.global(), d.status)
	d.returned(o)
	o.line("--%s--", d.boundary)
	return errors.Join(o.err, o.w.Flush())
}

func (d *dsn) header(o *out) {
	o.field("Date", d.date.Format(time.RFC1123Z))
	o.field("From", "Mail Delivery System <MAILER-DAEMON@"+d.hostname+">")
	o.exact("To", "<"+d.message.Sender+">")
	o.field("Subject", d.subject())
	o.field("Message-ID", "<"+d.id.String()+".bounce@"+d.hostname+">")
	if d.original != nil && d.original.messageID != "" {
		o.exact("In-Reply-To", d.original.messageID)
		o.exact("References", d.original.messageID)
	}
	o.line("Auto-Submitted: auto-replied") // RFC 3834 section 5
	o.line("MIME-Version: 1.0")
	o.line("Content-Type: multipart/report; report-type=%s;", d.pick("delivery-status", "global-delivery-status"))
	o.line("\tboundary=%q", d.boundary)
	if d.eightBit() {
		o.line("Content-Transfer-Encoding: 8bit")
	}
	o.line("")
	o.line("This is a report in MIME format.")
	o.line("")
}

// part writes a part of our own making.
func (d *dsn) part(o *out, media, description string, utf8 bool, render func(*out)) {
	var content bytes.Buffer
	in := &out{w: bufio.NewWriter(&content), utf8: utf8}
	render(in)
	o.err = errors.Join(o.err, in.err, in.w.Flush())
	eightBit := !address.ASCII(content.String())
	if media == "text/plain" {
		media += "; charset=us-ascii"
		if eightBit {
			media = "text/plain; charset=utf-8"
		}
	}
	o.begin(d.boundary, media, description, d.encoding(eightBit, true))
	o.content(d.encoding(eightBit, true), func(w io.Writer) error {
		_, err := content.WriteTo(w)
		return err
	})
}

// returned is the part with the original message, or its header.
func (d *dsn) returned(o *out) {
	if d.original == nil {
		return
	}
	media, description := d.pick("text/rfc822-headers", "message/global-headers"), "Header of the message"
	if d.original.full {
		media, description = d.pick("message/rfc822", "message/global"), "The message"
	}
	enc := d.encoding(d.original.eightBit, d.encodable())
	o.begin(d.boundary, media, description, enc)
	o.content(enc, d.original.writeTo)
}

// out writes lines with CRLF, and keeps the first error.
type out struct {
	w    *bufio.Writer
	utf8 bool
	err  error
}

// line writes one line of our own making. Text from strangers in it has been
// through clean.
func (o *out) line(format string, args ...any) {
	if o.err == nil {
		_, o.err = fmt.Fprintf(o.w, format+"\r\n", args...)
	}
}

// begin writes the header of a part.
func (o *out) begin(boundary, media, description, encoding string) {
	o.line("--%s", boundary)
	o.line("Content-Type: %s", media)
	o.line("Content-Description: %s", description)
	if encoding != "" {
		o.line("Content-Transfer-Encoding: %s", encoding)
	}
	o.line("")
}

// content writes what a part holds, with the line end that belongs to the boundary
// after it.
func (o *out) content(encoding string, write func(io.Writer) error) {
	if o.err != nil {
		return
	}
	if encoding != "quoted-printable" {
		o.err = write(o.w)
	} else {
		qp := quotedprintable.NewWriter(o.w)
		o.err = errors.Join(write(qp), qp.Close())
	}
	o.line("")
}
