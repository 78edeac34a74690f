package format

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Mode says where the text goes, and so what of a stranger's text is unsafe.
// Unsafe characters become ':'.
type Mode uint8

const (
	// Command is a shell command or a network address. Only letters, digits
	// and @._+=:,^/- stay; raw lets the specials of an address through as well
	// (!#$%&'*?`{|}~), never what only a quoted local part can hold.
	Command Mode = iota
	// Path is a file name. A value never adds a path component: '/' becomes ':'
	// even with raw, and so does a leading dot.
	Path
)

const (
	plainChars   = "@._+=:,^/-"
	specialChars = "!#$%&'*?`{|}~"
)

// safe replaces what is unsafe in mode.
func (m Mode) safe(s string, raw bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case m == Path && r == '/', r == utf8.RuneError:
			return ':'
		case r >= utf8.RuneSelf:
			if unicode.IsPrint(r) {
				return r
			}
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9',
			strings.ContainsRune(plainChars, r),
			raw && strings.ContainsRune(specialChars, r):
			return r
		}
		return ':'
	}, s)
}

// output collects an expansion. For a path it watches the components that
// values had a part in.
type output struct {
	b     strings.Builder
	path  bool
	start int  // of the present component
	dirty bool // a value had a part in it
	err   error
}

// literal adds the administrator's text.
func (o *output) literal(s string) {
	for o.path {
		i := strings.IndexByte(s, '/')
		if i < 0 {
			break
		}
		o.b.WriteString(s[:i])
		o.component()
		o.b.WriteByte('/')
		o.start = o.b.Len()
		s = s[i+1:]
	}
	o.b.WriteString(s)
}

// value adds text that a stranger had a hand in.
func (o *output) value(s string) {
	if o.path && o.b.Len() == o.start && strings.HasPrefix(s, ".") {
		s = ":" + s[1:]
	}
	o.dirty = true
	o.b.WriteString(s)
}

// component ends a path component.
func (o *output) component() {
	if name := o.b.String()[o.start:]; o.dirty && (name == "" || name == "." || name == "..") && o.err == nil {
		o.err = fmt.Errorf("%w: a component of the path would be %q", ErrValue, name)
	}
	o.dirty = false
}

func (o *output) finish() (string, error) {
	if o.path {
		o.component()
	}
	if o.err == nil && o.b.Len() > maxOutput {
		o.err = fmt.Errorf("%w: longer than %d bytes", ErrValue, maxOutput)
	}
	if o.err != nil {
		return "", o.err
	}
	return o.b.String(), nil
}
