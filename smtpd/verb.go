package smtpd

import (
	"bytes"
	"strings"
)

// verb is an SMTP command.
type verb uint8

const (
	verbConnect verb = iota // no command yet: the banner
	verbUnknown
	verbHelo
	verbEhlo
	verbMail
	verbRcpt
	verbData
	verbBdat
	verbRset
	verbNoop
	verbQuit
	verbVrfy
	verbExpn
	verbHelp
	verbAuth
	verbStartTLS
	verbHTTP // not SMTP at all: a web client was tricked into talking to us
)

// parseVerb reads the first word of a command.
func parseVerb(word string) verb {
	switch word {
	case "HELO":
		return verbHelo
	case "EHLO":
		return verbEhlo
	case "MAIL":
		return verbMail
	case "RCPT":
		return verbRcpt
	case "DATA":
		return verbData
	case "BDAT":
		return verbBdat
	case "RSET":
		return verbRset
	case "NOOP":
		return verbNoop
	case "QUIT":
		return verbQuit
	case "VRFY":
		return verbVrfy
	case "EXPN":
		return verbExpn
	case "HELP":
		return verbHelp
	case "AUTH":
		return verbAuth
	case "STARTTLS":
		return verbStartTLS
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI", "HOST:", "USER-AGENT:":
		return verbHTTP
	}
	return verbUnknown
}

// splitCommand cuts a line without its end into verb and argument.
func splitCommand(line []byte) (v verb, word, arg string) {
	first, rest, _ := bytes.Cut(line, []byte{' '})
	if len(first) > 16 {
		return verbUnknown, "", ""
	}
	word = strings.ToUpper(string(first))
	return parseVerb(word), word, string(bytes.TrimSpace(rest))
}

// cutLineEnd removes CRLF, or the bare LF that people at a terminal send. As a
// line end of commands it is harmless: what a message is, is decided elsewhere.
func cutLineEnd(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	return bytes.TrimSuffix(line, []byte{'\r'})
}

// hasControl reports whether a command holds a character that none may hold
// (RFC 5321 section 4.1.2): NUL, a bare CR, any other control.
func hasControl(line []byte) bool {
	for _, b := range line {
		if b < ' ' || b == 0x7f {
			return true
		}
	}
	return false
}
