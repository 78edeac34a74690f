package queue

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// maxReturned is the largest message that goes back whole, and maxHeader the
	// most of a header that does, in bytes.
	maxReturned = 2 << 20
	maxHeader   = 256 << 10
	// maxLine is the longest line, in bytes without its end (RFC 5321 section
	// 4.5.3.1.6).
	maxLine = 998
	// maxID is the longest Message-ID that is referred to.
	maxID = 250
)

// original is the message that a report is about, or its header.
type original struct {
	body      io.ReaderAt
	size      int64
	full      bool   // it goes back whole
	tooLarge  bool   // it would, if it were smaller
	eightBit  bool   // what goes back is not ASCII
	messageID string // with its brackets, or empty
}

// examine reads a message to know how it may go back: whole, or its header.
func examine(body io.ReaderAt, size int64, whole bool) (*original, error) {
	o := &original{body: body, size: size, full: whole && size <= maxReturned, tooLarge: whole && size > maxReturned}
	var header bytes.Buffer
	if err := o.copy(&header, false); err != nil {
		return nil, err
	}
	o.messageID = messageID(header.String())
	o.eightBit = !ascii(header.Bytes())
	if o.full && !o.eightBit {
		probe := &eightBitProbe{}
		if err := o.copy(probe, true); err != nil {
			return nil, err
		}
		o.eightBit = probe.found
	}
	return o, nil
}

func ascii(p []byte) bool {
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// eightBitProbe looks whether what is written to it is ASCII.
type eightBitProbe struct{ found bool }

func (p *eightBitProbe) Write(b []byte) (int, error) {
	p.found = p.found || !ascii(b)
	return len(b), nil
}

// messageID returns the Message-ID of a header if it is fit to be referred to.
func messageID(header string) string {
	for line := range strings.Lines(header) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !strings.EqualFold(name, "Message-ID") {
			continue
		}
		id := strings.TrimSpace(value)
		inner, ok := strings.CutPrefix(id, "<")
		inner, ok2 := strings.CutSuffix(inner, ">")
		bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' }
		if ok && ok2 && len(id) <= maxID && inner != "" && strings.IndexFunc(inner, bad) < 0 {
			return id
		}
		return ""
	}
	return ""
}

// writeTo writes what goes back.
func (o *original) writeTo(w io.Writer) error { return o.copy(w, o.full) }

// copy writes the message or its header, with line ends and lengths as they must
// be: what was stored came from a stranger.
func (o *original) copy(w io.Writer, full bool) error {
	limit := o.size
	if !full {
		limit = min(limit, maxHeader)
	}
	l := &lineCopier{w: bufio.NewWriter(w), header: true, only: !full}
	in := bufio.NewReader(io.NewSectionReader(o.body, 0, limit))
	for {
		c, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if l.put(c); !l.header && !full {
			break
		}
	}
	l.end()
	return l.w.Flush()
}

// lineCopier copies lines. Bare CR and LF become CRLF, NUL a question mark, and
// lines that are too long are cut, in a header so that the field goes on. Errors
// are left to the last Flush.
type lineCopier struct {
	w      *bufio.Writer
	header bool // no empty line was seen yet
	only   bool // that line is left out
	cr     bool
	col    int
}

func (l *lineCopier) put(c byte) {
	switch {
	case c == '\n':
		l.cr = false
		l.newline()
		return
	case l.cr:
		l.newline()
	}
	if l.cr = c == '\r'; l.cr {
		return
	}
	// A few bytes early, and not within a character.
	if l.col >= maxLine-utf8.UTFMax && utf8.RuneStart(c) || l.col >= maxLine {
		l.cut()
	}
	if c == 0 {
		c = '?'
	}
	_ = l.w.WriteByte(c)
	l.col++
}

func (l *lineCopier) newline() {
	if l.col == 0 && l.header {
		if l.header = false; l.only {
			return
		}
	}
	_, _ = l.w.WriteString("\r\n")
	l.col = 0
}

func (l *lineCopier) cut() {
	_, _ = l.w.WriteString("\r\n")
	if l.col = 0; l.header {
		_ = l.w.WriteByte(' ')
		l.col = 1
	}
}

// end completes the last line.
func (l *lineCopier) end() {
	if l.cr || l.col > 0 {
		_, _ = l.w.WriteString("\r\n")
	}
}
