package mta

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/queue"
)

// wireAddress returns a mailbox as it goes over the wire, its domain in
// A-labels if that makes it ASCII. utf8 means that it still needs SMTPUTF8.
func wireAddress(addr string) (wire string, utf8 bool) {
	if address.ASCII(addr) {
		return addr, false
	}
	local, domain := address.Split(addr)
	ascii, err := address.ToASCII(domain)
	if err != nil || !address.ASCII(local) {
		return addr, true
	}
	return local + "@" + ascii, false
}

// mailLine is MAIL with the parameters of the extensions that the server offers:
// BODY (RFC 6152), SIZE (RFC 1870), SMTPUTF8 (RFC 6531), REQUIRETLS (RFC 8689),
// those of wishes, RET and ENVID (RFC 3461 section 4.3, 4.4).
func (t *transaction) mailLine(from string, utf8 bool) string {
	m, s := &t.job.Message, t.session
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + from + ">")
	if _, ok := s.offers("8BITMIME"); ok {
		b.WriteString(" BODY=8BITMIME")
	}
	if _, ok := s.offers("SIZE"); ok {
		b.WriteString(" SIZE=" + strconv.FormatInt(t.size(), 10))
	}
	if utf8 {
		b.WriteString(" SMTPUTF8")
	}
	if m.RequireTLS && s.channel.encrypted && s.channel.tagged {
		b.WriteString(" REQUIRETLS")
	}
	b.WriteString(t.wishes(time.Now()))
	if _, ok := s.offers("DSN"); !ok {
		return b.String()
	}
	if m.Ret == "FULL" || m.Ret == "HDRS" {
		b.WriteString(" RET=" + m.Ret)
	}
	if m.EnvID != "" && printable(m.EnvID) && len(m.EnvID) <= 100 {
		b.WriteString(" ENVID=" + xtext(m.EnvID))
	}
	return b.String()
}

// rcptLine is RCPT with NOTIFY and ORCPT (RFC 3461 section 4.1, 4.2) where the
// server offers DSN. What is not well formed is left out rather than refused: it
// was accepted once.
func (s *session) rcptLine(env *queue.Envelope, to string) string {
	line := "RCPT TO:<" + to + ">"
	if _, ok := s.offers("DSN"); !ok {
		return line
	}
	if words := notify(env.Notify); words != "" {
		line += " NOTIFY=" + words
	}
	kind, original, ok := strings.Cut(env.ORCPT, ";")
	if !ok || original == "" || len(original) > 500 {
		return line
	}
	switch strings.ToUpper(kind) {
	case "RFC822":
		if printable(original) {
			line += " ORCPT=RFC822;" + xtext(original)
		}
	case "UTF-8":
		_, utf8 := s.offers("SMTPUTF8")
		line += " ORCPT=UTF-8;" + unitext(address.OneLine(original, 600), utf8)
	}
	return line
}

// notify returns the words of a NOTIFY list that are known, each once.
func notify(list string) string {
	var out []string
	for word := range strings.SplitSeq(strings.ToUpper(list), ",") {
		switch word {
		case "NEVER":
			return word
		case "SUCCESS", "FAILURE", "DELAY":
			if !slices.Contains(out, word) {
				out = append(out, word)
			}
		}
	}
	return strings.Join(out, ",")
}

// xtext encodes printable ASCII (RFC 3461 section 4).
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; plainXchar(rune(c)) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// unitext encodes an address as utf-8-addr-unitext, or where the server does not
// take UTF-8, as utf-8-addr-xtext (RFC 6533 section 3).
func unitext(s string, utf8 bool) string {
	var b strings.Builder
	for _, c := range s {
		if plainXchar(c) && c != '\\' || utf8 && c > '~' {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, `\x{%02X}`, c)
		}
	}
	return b.String()
}

func plainXchar(c rune) bool { return '!' <= c && c <= '~' && c != '+' && c != '=' }

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// sendable reports whether an address can stand in a command at all.
func sendable(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }

// relayed reports whether the server takes over the duty of delivery reports,
// because the DSN parameters went along (RFC 3461 section 5.2.1).
func (s *session) relayed() bool {
	_, dsn := s.offers("DSN")
	return dsn
}
