package smtpd

import (
	"bytes"
	"errors"
)

// maxLine is the longest line of a message, in bytes without its end. RFC 5321
// section 4.5.3.1.6 asks for 998; real mail has longer ones.
const maxLine = 65535

// What ends a session in the middle of a message: whoever sent it may disagree
// with us about where the message ends, so that nothing behind it can be trusted
// to be a command.
var (
	errBareCR = errors.New("bare CR in message data")
	errBareLF = errors.New("bare LF in message data")
	errNUL    = errors.New("NUL in message data")
)

// sink takes message content.
type sink interface{ take(p []byte) }

// scanner reads message content: it removes dot-stuffing, finds the end of data,
// which is CRLF.CRLF and nothing else, and lets no bare CR, bare LF or NUL
// through. It works on whatever piece of input is there, by memchr rather than
// by byte.
type scanner struct {
	dots      bool // DATA: dots are stuffed, and a lone one ends. Without: BDAT
	normalize bool // bare CR and LF become CRLF, and do not end anything

	inLine  bool // the last byte taken was not the end of a line
	literal bool // normalize: this line began behind a bare CR or LF, its dot is no dot
	line    int  // length of the line so far
	long    bool // a line was longer than maxLine
}

// scan takes what it can of b and gives the content to w. n bytes are done with;
// one or two at the end may wait for what follows them. done means that the end
// of data was among the n.
func (s *scanner) scan(b []byte, w sink) (n int, done bool, err error) {
	from, pos, ends := 0, 0, 0
	for pos < len(b) {
		if s.dots && !s.inLine && !s.literal && b[pos] == '.' {
			kind := dotKind(b[pos:])
			if kind == dotUnknown {
				break
			}
			give(w, b[from:pos])
			if kind == dotEnd {
				return pos + 3, true, s.check(b[:pos], ends)
			}
			pos++
			from = pos
			s.inLine = true
		}
		pos += s.text(b[pos:])
		if pos == len(b) || b[pos] == '\r' && pos+1 == len(b) {
			break
		}
		if b[pos] == '\r' && b[pos+1] == '\n' {
			pos += 2
			ends++
			s.newLine(false)
			continue
		}
		if !s.normalize {
			return pos, false, errBareCR
		}
		give(w, b[from:pos])
		give(w, []byte("\r\n"))
		pos++
		from = pos
		s.newLine(true)
	}
	give(w, b[from:pos])
	return pos, false, s.check(b[:pos], ends)
}

func give(w sink, p []byte) {
	if len(p) > 0 {
		w.take(p)
	}
}

// text counts the bytes up to the next line end, or what looks like one.
func (s *scanner) text(b []byte) int {
	var k int
	if s.normalize {
		k = bytes.IndexAny(b, "\r\n")
	} else {
		k = bytes.IndexByte(b, '\r') // a bare LF is found by check
	}
	if k < 0 {
		k = len(b)
	}
	if k > 0 {
		s.inLine = true
		s.line += k
		s.long = s.long || s.line > maxLine
	}
	return k
}

func (s *scanner) newLine(literal bool) { s.inLine, s.literal, s.line = false, literal, 0 }

// check looks for what must not be in b, of which ends line ends were seen.
func (s *scanner) check(b []byte, ends int) error {
	if bytes.IndexByte(b, 0) >= 0 {
		return errNUL
	}
	if !s.normalize && bytes.Count(b, []byte{'\n'}) != ends {
		return errBareLF
	}
	return nil
}

// dot is what a dot at the beginning of a line is.
type dot uint8

const (
	dotUnknown dot = iota // more input is needed to tell
	dotStuffed            // remove it
	dotEnd                // the end of data
)

func dotKind(b []byte) dot {
	switch {
	case len(b) < 2 || b[1] == '\r' && len(b) < 3:
		return dotUnknown
	case b[1] == '\r' && b[2] == '\n':
		return dotEnd
	}
	return dotStuffed
}

// chunks feeds BDAT content through a scanner. Unlike DATA's, a piece of it must
// be taken whole, for the next one stands behind a command.
type chunks struct {
	scanner
	cr bool // the last byte was a CR, whose LF may come with the next chunk
}

// add takes all of b.
func (k *chunks) add(b []byte, w sink) error {
	if len(b) == 0 {
		return nil
	}
	if k.cr {
		k.cr = false
		pair := [2]byte{'\r', b[0]}
		n, _, err := k.scan(pair[:], w)
		if err != nil {
			return err
		}
		if n == 2 {
			b = b[1:]
		}
	}
	n, _, err := k.scan(b, w)
	k.cr = err == nil && n < len(b)
	return err
}

// end closes the last line: what is stored ends with CRLF.
func (k *chunks) end(w sink) error {
	if k.cr && !k.normalize {
		return errBareCR
	}
	if k.cr || k.inLine {
		w.take([]byte("\r\n"))
	}
	return nil
}
