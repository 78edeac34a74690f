package queue

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"tabard/internal/address"
)

// maxFold is what RFC 5322 section 2.1.1 wants lines to keep below.
const maxFold = 76

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
func (o *out) field(name, value string) { o.wrap(name+": ", " ", value) }

// para writes text for people, wrapped and indented.
func (o *out) para(indent, text string) { o.wrap(indent, indent, text) }

// wrap writes the words of a text after first, and what finds no room there on
// lines after next.
func (o *out) wrap(first, next, text string) {
	line, empty := first, true
	for _, word := range strings.Fields(o.clean(text)) {
		switch {
		case empty:
		case len(line)+1+len(word) > maxFold:
			o.line("%s", line)
			line = next
		default:
			line += " "
		}
		line, empty = line+word, false
	}
	o.line("%s", line)
}

// exact writes a header field whose value counts blank by blank: not folded.
func (o *out) exact(name, value string) { o.line("%s: %s", name, o.clean(value)) }

// status is the part for programs.
func (d *dsn) status(o *out) {
	if d.message.EnvID != "" {
		o.exact("Original-Envelope-Id", d.message.EnvID)
	}
	o.field("Reporting-MTA", "dns; "+d.hostname)
	if from := receivedFrom(d.message); from != "" {
		o.field("Received-From-MTA", from)
	}
	o.field("Arrival-Date", d.message.Created.Format(time.RFC1123Z))
	if by := d.message.DeliverBy.Time; !by.IsZero() { // RFC 2852
		o.field("Deliver-By-Date", by.Format(time.RFC1123Z))
	}
	if at := d.message.Release; at.After(d.message.Created) { // RFC 4865
		o.field("Future-Release-Request", "until; "+at.UTC().Format(time.RFC3339))
	}
	for _, it := range d.items {
		o.line("")
		recipientFields(o, it)
	}
}

// receivedFrom names the server that the message came from. Clients who log in are
// none, and what they call themselves is nobody's concern.
func receivedFrom(m *Message) string {
	if _, err := netip.ParseAddr(m.Remote); err != nil || m.User != "" {
		return ""
	}
	if name := mtaName(m.Helo); strings.HasPrefix(name, "dns; ") {
		return name
	}
	return ""
}

func recipientFields(o *out, it *item) {
	n := it.note
	if it.env.ORCPT != "" {
		o.exact("Original-Recipient", originalRecipient(o, it.env.ORCPT))
	}
	o.exact("Final-Recipient", recipient(o, it.env.Address))
	o.field("Action", n.Kind)
	o.field("Status", statusOf(n))
	if n.Remote != "" {
		o.field("Remote-MTA", mtaName(n.Remote))
	}
	switch {
	case n.Code != 0:
		o.field("Diagnostic-Code", "smtp; "+n.reply())
	case n.Text != "" || n.Expired:
		o.field("Diagnostic-Code", "x-tabard; "+noticeText(n))
	}
	o.field("Last-Attempt-Date", n.At.Format(time.RFC1123Z))
	if n.Kind == kindDelayed {
		o.field("Will-Retry-Until", it.env.Expires.Format(time.RFC1123Z))
	}
}

// mtaName writes a server's name with its type (RFC 3464 section 2.1.2): a name or
// address of the DNS, without the port that LMTP may have, or the path of a socket.
func mtaName(s string) string {
	host := s
	if h, _, err := net.SplitHostPort(s); err == nil {
		host = h
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if host = "[" + ip.String() + "]"; ip.Is6() {
			host = "[IPv6:" + ip.String() + "]"
		}
	}
	switch {
	case host != "" && address.CheckDomain(host) == nil:
		return "dns; " + host
	case strings.HasPrefix(s, "/"):
		return "x-unix; " + s
	}
	return "x-tabard; " + s
}

// statusOf is the enhanced code of a notice, which must agree with its kind
// (RFC 3464 section 2.3.4): a stranger's need not.
func statusOf(n *notice) string {
	classes, fallback := "45", "5.0.0"
	switch n.Kind {
	case kindDelayed:
		classes, fallback = "4", "4.0.0"
	case kindDelivered, kindRelayed, kindExpanded:
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
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
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
	kind, addr = strings.TrimSpace(kind), strings.TrimSpace(addr)
	if !ok || kind == "" || strings.Trim(strings.ToLower(kind), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return recipient(o, orcpt)
	}
	if !address.ASCII(addr) {
		kind = "utf-8"
	}
	return kind + "; " + utf8Addr(o, addr)
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
