// Package format expands the specifiers of delivery options: %{sender},
// %{rcpt} and %{dest} (each alone or with .user or .domain), %{user.username},
// %{user.directory}, %{mbox.from} and %{mda}.
//
// A specifier may end in a substring [x] or [x:y] and in modifiers after a
// colon, joined by '|': lowercase, uppercase, strip (without the +tag), raw.
// Offsets count characters from 0; in [x:y] both ends belong, and a negative
// offset counts from the end, the last character being [-1] as a start and left
// out by -1 as an end: of "user", [0:-1] is "use" and [-1:] is "r". "%%" is a
// per cent sign, and a leading "~/" is the user's home directory.
//
// What strangers wrote (addresses, user names) is made safe for its place: see
// Mode.
package format

import (
	"errors"
	"fmt"
	"strings"

	"tabard/internal/address"
)

// maxOutput bounds an expanded text, in bytes.
const maxOutput = 8192

var (
	// ErrSyntax means that a template cannot be read.
	ErrSyntax = errors.New("bad format")
	// ErrValue means that a template has no expansion for these values.
	ErrValue = errors.New("cannot expand")
)

// Values are what the specifiers stand for.
type Values struct {
	Sender address.Address // zero for the null reverse-path
	Rcpt   address.Address // as given in RCPT
	Dest   address.Address // after alias expansion
	User   string
	Home   string
	MDA    string // the command inside a wrapper; empty elsewhere
	Delim  string // sub-address delimiter, for strip
}

// Template is a parsed text. It is immutable.
type Template struct {
	home   bool // begins with ~/
	pieces []piece
}

// piece is literal text, or a specifier when name is set.
type piece struct {
	literal  string
	name     string
	ranged   bool
	from, to int
	mods     []string
}

// Parse reads a template.
func Parse(text string) (*Template, error) {
	t := &Template{}
	rest := text
	if strings.HasPrefix(rest, "~/") {
		t.home, rest = true, rest[1:]
	}
	for rest != "" {
		i := strings.IndexByte(rest, '%')
		if i < 0 || i == len(rest)-1 {
			t.literal(rest)
			break
		}
		t.literal(rest[:i])
		switch rest[i+1] {
		case '%':
			t.literal("%")
			rest = rest[i+2:]
		case '{':
			end := strings.IndexByte(rest[i:], '}')
			if end < 0 {
				return nil, fmt.Errorf("%w %q: %%{ without }", ErrSyntax, text)
			}
			p, err := parseSpecifier(rest[i+2 : i+end])
			if err != nil {
				return nil, fmt.Errorf("%w %q: %w", ErrSyntax, text, err)
			}
			t.pieces = append(t.pieces, p)
			rest = rest[i+end+1:]
		default:
			t.literal("%")
			rest = rest[i+1:]
		}
	}
	return t, nil
}

func (t *Template) literal(s string) {
	if s != "" {
		t.pieces = append(t.pieces, piece{literal: s})
	}
}

// Expand parses text and expands it.
func Expand(text string, mode Mode, v Values) (string, error) {
	t, err := Parse(text)
	if err != nil {
		return "", err
	}
	return t.Expand(mode, v)
}

// Expand returns the text with every specifier replaced. Its errors wrap
// ErrValue: a substring beyond the end of a value, a path component that
// strangers' text would leave empty or turn into "..", no home directory, or
// too long a result.
func (t *Template) Expand(mode Mode, v Values) (string, error) {
	out := output{path: mode == Path}
	if t.home {
		if v.Home == "" {
			return "", fmt.Errorf("%w: user %q has no home directory", ErrValue, v.User)
		}
		out.literal(strings.TrimRight(v.Home, "/"))
	}
	for _, p := range t.pieces {
		if p.name == "" {
			out.literal(p.literal)
			continue
		}
		value, trusted, err := p.expand(mode, v)
		if err != nil {
			return "", err
		}
		if trusted {
			out.literal(value)
		} else {
			out.value(value)
		}
	}
	return out.finish()
}

// Raw reports whether the template takes any value with the raw modifier,
// which in a command hands shell metacharacters from strangers to the shell.
func (t *Template) Raw() bool {
	for _, p := range t.pieces {
		for _, m := range p.mods {
			if m == "raw" {
				return true
			}
		}
	}
	return false
}
