package config

import (
	"bytes"
	"fmt"
	"strings"
)

// maxToken bounds one token, in bytes, as OpenSMTPD does.
const maxToken = 8096

// maxText bounds everything that one reading reads: files, and values of macros
// each time that they are used.
const maxText = 4 << 20

const tooMuchText = "more than 4 MiB of configuration text"

type kind uint8

const (
	tokEOF kind = iota
	tokNewline
	tokWord   // unquoted
	tokString // quoted
	tokNumber
	tokPunct // text is one of { } , ! = < > ( ) or =>
	tokError // text is the message
)

type token struct {
	kind kind
	text string
	pos  Pos
}

// String describes the token in messages.
func (t token) String() string {
	switch t.kind {
	case tokEOF:
		return "end of file"
	case tokNewline:
		return "end of line"
	}
	return fmt.Sprintf("%q", t.text)
}

// lexer cuts a source into tokens.
type lexer struct {
	source
	macros map[string]string
	left   int // bytes of text that may still be read, over all files and macros
}

// next returns the next token. After the end it returns tokEOF for ever.
func (l *lexer) next() token {
	for {
		if t, ok := l.lex(); ok {
			return t
		}
	}
}

// lex returns the next token, or false when a macro or the end of an included
// file stood there instead.
func (l *lexer) lex() (token, bool) {
	l.blanks()
	pos := l.pos()
	c, width := l.look()
	switch {
	case c == eof:
		return l.endOfFile(pos)
	case c == '$' && len(l.macro) == 0: // a macro's value is not expanded again
		l.skip(width)
		msg := l.expand(pos)
		return token{tokError, msg, pos}, msg != ""
	}
	return l.plain(pos, c, width), true
}

// plain reads the token that begins with c.
func (l *lexer) plain(pos Pos, c, width int) token {
	switch {
	case c == '\n':
		l.skip(width)
		return token{tokNewline, "\n", pos}
	case c == '"' || c == '\'':
		l.skip(width)
		return l.quoted(pos, c)
	case c == '-' || isDigit(c):
		return l.number(pos)
	case startsWord(c):
		return l.word(pos, nil)
	}
	l.skip(width)
	if c == '=' {
		if d, w := l.look(); d == '>' {
			l.skip(w)
			return token{tokPunct, "=>", pos}
		}
	}
	if strings.IndexByte("{},!=<>()", byte(c)) >= 0 {
		return token{tokPunct, string(rune(c)), pos}
	}
	return token{tokError, fmt.Sprintf("unexpected character %q", rune(c)), pos}
}

// blanks skips white space and a comment, up to the newline.
func (l *lexer) blanks() {
	comment := false
	for {
		c, width := l.look()
		switch {
		case c == eof || c == '\n':
			return
		case comment || c == ' ' || c == '\t' || c == '\r':
		case c == '#':
			comment = true
		default:
			return
		}
		l.skip(width)
	}
}

// endOfFile ends the innermost file with a newline and goes back to the one that
// included it.
func (l *lexer) endOfFile(pos Pos) (token, bool) {
	f := l.top()
	if !f.ended {
		f.ended = true
		return token{tokNewline, "\n", pos}, true
	}
	if len(l.files) == 1 {
		return token{tokEOF, "", pos}, true
	}
	l.files = l.files[:len(l.files)-1]
	return token{}, false
}

// expand puts a macro's value in place of its name, and returns a message when
// there is none.
func (l *lexer) expand(pos Pos) string {
	var name []byte
	for {
		c, width := l.look()
		if c == eof || !isAlnum(c) && c != '_' {
			break
		}
		if name = append(name, byte(c)); len(name) > maxToken {
			return "name of a macro is too long"
		}
		l.skip(width)
	}
	if len(name) == 0 {
		return `expected the name of a macro after "$"`
	}
	value, ok := l.macros[string(name)]
	if !ok {
		return fmt.Sprintf("macro %q is not defined", name)
	}
	if l.left -= len(value); l.left < 0 {
		return tooMuchText
	}
	l.macro, l.where = []byte(value), pos
	return ""
}

// quoted reads a string up to quote. A backslash escapes the quote, a blank or a
// tab, and stays in front of anything else; the ends of lines are left out.
func (l *lexer) quoted(pos Pos, quote int) token {
	var text []byte
	for {
		c := l.takeRaw()
		switch c {
		case eof:
			return token{tokError, fmt.Sprintf("string is not closed; expected %c", quote), pos}
		case 0:
			return token{tokError, "NUL byte in a string", pos}
		case quote:
			return token{tokString, string(text), pos}
		case '\n':
			continue
		case '\r':
			if l.peekRaw() == '\n' {
				continue
			}
		case '\\':
			switch next := l.peekRaw(); next {
			case quote, ' ', '\t':
				c = l.takeRaw()
			case '\n':
				continue
			}
		}
		if text = append(text, byte(c)); len(text) > maxToken {
			return token{tokError, fmt.Sprintf("string is longer than %d bytes", maxToken), pos}
		}
	}
}

// number reads digits, and goes on with a word when something else follows them,
// as in 10M or 127.0.0.1.
func (l *lexer) number(pos Pos) token {
	digits := []byte{byte(l.take())}
	for {
		c, width := l.look()
		if !isDigit(c) {
			break
		}
		if digits = append(digits, byte(c)); len(digits) > maxToken {
			return token{tokError, "number is too long", pos}
		}
		l.skip(width)
	}
	if c, _ := l.look(); inWord(c) || string(digits) == "-" {
		return l.word(pos, digits)
	}
	return token{tokNumber, string(digits), pos}
}

// word reads an unquoted word that begins with text.
func (l *lexer) word(pos Pos, text []byte) token {
	for {
		c, width := l.look()
		// OpenSMTPD has no URLs with parameters, where these two belong.
		inURL := (c == '=' || c == '!') && bytes.Contains(text, []byte("://"))
		if !inWord(c) && !inURL {
			return token{tokWord, string(text), pos}
		}
		if c == '"' {
			return token{tokError, "quote within a word; put the whole word into quotes", pos}
		}
		if text = append(text, byte(c)); len(text) > maxToken {
			return token{tokError, fmt.Sprintf("word is longer than %d bytes", maxToken), pos}
		}
		l.skip(width)
	}
}

func isDigit(c int) bool { return '0' <= c && c <= '9' }

func isAlnum(c int) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// startsWord reports whether c begins a word: OpenSMTPD's letters, digits, colon
// and underscore, and what begins paths, addresses and patterns here.
func startsWord(c int) bool {
	return isAlnum(c) || c >= 0x80 || c > 0 && strings.IndexByte(":_/[*@~.%+", byte(c)) >= 0
}

// inWord reports whether c goes on a word.
func inWord(c int) bool {
	return c > ' ' && c != 0x7f && strings.IndexByte("(){}<>!=#,", byte(c)) < 0
}
