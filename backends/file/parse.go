package file

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"tabard/internal/config"
)

// Bounds of a table file.
const (
	maxFile = 64 << 20 // bytes
	maxLine = 1 << 20  // bytes; a certificate with its chain is some thousand
)

// content is a parsed file.
type content struct {
	mapping bool
	pairs   []config.KeyVal // Value is empty in a list
}

// parse reads the syntax of OpenSMTPD's table files. Blanks around a line are
// dropped, as are blank lines and those that begin with '#'. The first entry
// decides between list and mapping: a key alone begins a list, and so does the
// comment "@list" before it. In a list an entry is the whole line. In a mapping
// a key ends at the first blank, tab or colon, or, when it begins with '[',
// after the ']'; one separator is eaten, then blanks; the rest is the value,
// and may not be missing. An empty file is an empty mapping. Beyond OpenSMTPD, a
// key may stand in double quotes, for those that hold a colon or a blank.
func parse(r io.Reader) (content, error) {
	lr := &io.LimitedReader{R: r, N: maxFile + 1}
	sc := bufio.NewScanner(lr)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	p := parser{}
	for sc.Scan() {
		p.line++
		if err := p.add(sc.Text()); err != nil {
			return content{}, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
	if err := sc.Err(); err != nil {
		return content{}, fmt.Errorf("line %d: %w", p.line+1, err)
	}
	if lr.N == 0 {
		return content{}, fmt.Errorf("file is larger than %d bytes", maxFile)
	}
	return content{mapping: !p.list, pairs: p.pairs}, nil
}

type parser struct {
	line          int
	decided, list bool
	pairs         []config.KeyVal
}

func (p *parser) add(line string) error {
	line = strings.Trim(line, " \t\r\f\v")
	if line == "" {
		return nil
	}
	if strings.ContainsRune(line, 0) {
		return fmt.Errorf("NUL character")
	}
	if line[0] == '#' {
		if !p.decided && strings.TrimSpace(line[1:]) == "@list" {
			p.decided, p.list = true, true
		}
		return nil
	}
	if p.decided && p.list {
		p.pairs = append(p.pairs, config.KeyVal{Key: line})
		return nil
	}
	return p.addPair(line)
}

// addPair reads the first entry, or one of a mapping.
func (p *parser) addPair(line string) error {
	if key, rest, ok := cutQuoted(line); ok {
		return p.put(key, rest)
	}
	end := strings.IndexAny(line, " \t:")
	if line[0] == '[' {
		if end = strings.IndexByte(line, ']') + 1; end == 0 {
			return fmt.Errorf("key %q has no closing bracket", line)
		}
	}
	if end < 0 {
		end = len(line)
	}
	return p.put(line[:end], line[end:])
}

// cutQuoted takes a key in quotes off a line with a value. Quotes that are only a
// part of the key, as in "john doe"@example.org, are none.
func cutQuoted(line string) (key, rest string, ok bool) {
	if line[0] != '"' {
		return "", "", false
	}
	key, rest, ok = strings.Cut(line[1:], `"`)
	if !ok || rest == "" || !strings.ContainsRune(" \t:", rune(rest[0])) {
		return "", "", false
	}
	return key, rest, true
}

// put adds an entry; rest is what follows the key, separator and all.
func (p *parser) put(key, rest string) error {
	if !p.decided {
		p.decided, p.list = true, rest == ""
	}
	value := ""
	if rest != "" {
		value = strings.TrimLeft(rest[1:], " \t")
	}
	if !p.list && value == "" {
		return fmt.Errorf("key %q has no value", key)
	}
	if key == "" {
		return fmt.Errorf("value without a key")
	}
	p.pairs = append(p.pairs, config.KeyVal{Key: key, Value: value})
	return nil
}
