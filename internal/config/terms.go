package config

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"tabard/internal/format"
)

// unexpected reports the present token, and what would have been right.
func (p *parser) unexpected(want ...string) *Error {
	if p.tok.kind == tokError {
		return errorAt(p.tok.pos, "%s", p.tok.text)
	}
	if len(want) == 1 {
		return errorAt(p.tok.pos, "unexpected %s; expected %s", p.tok, want[0])
	}
	return errorAt(p.tok.pos, "unexpected %s; expected one of %s", p.tok, listWords(want))
}

func (p *parser) isPunct(text string) bool { return p.tok.kind == tokPunct && p.tok.text == text }

func (p *parser) isWord(word string) bool { return p.tok.kind == tokWord && p.tok.text == word }

// accept takes the keyword word if it is next.
func (p *parser) accept(word string) bool {
	if !p.isWord(word) {
		return false
	}
	p.next()
	return true
}

// keyword takes the keyword word.
func (p *parser) keyword(word string) *Error {
	if !p.accept(word) {
		return p.unexpected(strconv.Quote(word))
	}
	return nil
}

func (p *parser) punct(text string) *Error {
	if !p.isPunct(text) {
		return p.unexpected(strconv.Quote(text))
	}
	p.next()
	return nil
}

// oneOf takes one of several words, quoted or not.
func (p *parser) oneOf(words ...string) (string, *Error) {
	if p.tok.kind != tokWord && p.tok.kind != tokString || !slices.Contains(words, p.tok.text) {
		return "", p.unexpected(words...)
	}
	word := p.tok.text
	p.next()
	return word, nil
}

// isStr reports whether text comes next.
func (p *parser) isStr() bool {
	switch p.tok.kind {
	case tokString, tokNumber:
		return true
	case tokWord:
		return !p.reserved[p.tok.text]
	}
	return false
}

// str takes a text: a quoted string, or a word that is not reserved. what says
// what it is, for messages.
func (p *parser) str(what string) (string, *Error) {
	if p.tok.kind == tokWord && p.reserved[p.tok.text] {
		return "", errorAt(p.tok.pos, "%q is a reserved word; expected %s (put it into quotes if that is what you mean)",
			p.tok.text, what)
	}
	if !p.isStr() {
		return "", p.unexpected(what)
	}
	text := p.tok.text
	p.next()
	return text, nil
}

// into returns a reader of one text into *to, which may not be empty.
func (p *parser) into(to *string, what string) *Error {
	pos := p.tok.pos
	text, err := p.str(what)
	if err == nil && text == "" {
		return errorAt(pos, "empty string; expected %s", what)
	}
	*to = text
	return err
}

// name takes a name that goes into logs and messages: no blanks, no controls.
func (p *parser) name(to *string, what string) *Error {
	pos := p.tok.pos
	if err := p.into(to, what); err != nil {
		return err
	}
	if hasControl(*to) || strings.ContainsAny(*to, "<>") {
		return errorAt(pos, "bad %s %q: control characters and <> are not allowed", what, *to)
	}
	return nil
}

// template takes a text that may hold format specifiers.
func (p *parser) template(to *string, what string) *Error {
	pos := p.tok.pos
	if err := p.into(to, what); err != nil {
		return err
	}
	if _, err := format.Parse(*to); err != nil {
		return errorAt(pos, "%q: %v", *to, err)
	}
	return nil
}

// absPath takes the path of a file.
func (p *parser) absPath(to *string, what string) *Error {
	pos := p.tok.pos
	if err := p.into(to, what); err != nil {
		return err
	}
	if !strings.HasPrefix(*to, "/") || hasControl(*to) {
		return errorAt(pos, "%q; expected an absolute path: %s", *to, what)
	}
	return nil
}

// count takes an integer from min to max.
func (p *parser) count(min, max int) (int, *Error) {
	n, err := strconv.Atoi(p.tok.text)
	if p.tok.kind != tokNumber && p.tok.kind != tokString || err != nil || n < min || n > max {
		return 0, p.unexpected("a number from " + strconv.Itoa(min) + " to " + strconv.Itoa(max))
	}
	p.next()
	return n, nil
}

// maxDelay is what fits OpenSMTPD's delays, 2^31-1 seconds.
const maxDelay = (1<<31 - 1) * time.Second

// delay takes a duration: a number and one of s, m, h, d.
func (p *parser) delay(min time.Duration) (time.Duration, *Error) {
	d, ok := ParseDelay(p.tok.text)
	if p.tok.kind != tokWord && p.tok.kind != tokString || !ok {
		return 0, p.unexpected(`a delay such as 30s, 10m, 4h or 2d`)
	}
	if d < min {
		return 0, errorAt(p.tok.pos, "delay %q is too short; expected at least %s", p.tok.text, formatDelay(min))
	}
	p.next()
	return d, nil
}

// ParseDelay reads a delay as the language spells it: a number and one of s, m, h, d.
func ParseDelay(s string) (time.Duration, bool) {
	if len(s) < 2 || !isDigit(int(s[0])) {
		return 0, false
	}
	unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[s[len(s)-1]]
	n, err := strconv.ParseInt(s[:len(s)-1], 10, 64)
	if err != nil || unit == 0 || n > int64(maxDelay/unit) {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// formatDelay writes d, a whole number of seconds, as the language spells it.
func formatDelay(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit && d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}

// delays takes d[, d]..., at most max of them.
func (p *parser) delays(max int) ([]time.Duration, *Error) {
	var all []time.Duration
	for {
		if len(all) == max {
			return nil, errorAt(p.tok.pos, "more than %d delays", max)
		}
		d, err := p.delay(time.Second)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
		if !p.isPunct(",") {
			return all, nil
		}
		p.next()
	}
}

// size takes a number of bytes, with K, M, G or T for powers of 1024.
func (p *parser) size() (int64, *Error) {
	n, ok := parseSize(p.tok.text)
	if p.tok.kind != tokNumber && p.tok.kind != tokWord && p.tok.kind != tokString || !ok {
		return 0, p.unexpected("a size in bytes such as 512K, 35M or 1G")
	}
	p.next()
	return n, nil
}

func parseSize(s string) (int64, bool) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("BKMGT", s[len(s)-1]&^0x20); i >= 0 && !isDigit(int(s[len(s)-1])) {
			shift, s = 10*i, s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(s, 10, 62)
	if err != nil || n == 0 || n > 1<<62>>shift {
		return 0, false
	}
	return int64(n << shift), true
}
