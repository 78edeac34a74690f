package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// template is a statement taken apart at its parameters. Between texts[i] and
// texts[i+1] stands parameter number params[i].
type template struct {
	texts  []string
	params []int
}

// parse takes a statement apart. Strings, quoted names and comments are left
// alone, and so is the semicolon at the end.
func parse(sql string) (template, error) {
	sql = strings.TrimRight(sql, "; \t\r\n")
	var t template
	begin := 0
	for i := 0; i < len(sql); {
		if n := quotedLen(sql[i:]); n > 0 {
			i += n
			continue
		}
		if n := wordLen(sql[i:]); n > 0 {
			i += n // a $ within a name is no parameter
			continue
		}
		digits := digitsLen(sql[i+1:])
		if sql[i] != '$' || digits == 0 {
			i++
			continue
		}
		number, err := strconv.Atoi(sql[i+1 : i+1+digits])
		if err != nil || number == 0 {
			return template{}, fmt.Errorf("parameter %s: only $1 is known", sql[i:i+1+digits])
		}
		t.texts = append(t.texts, sql[begin:i])
		t.params = append(t.params, number)
		i += 1 + digits
		begin = i
	}
	t.texts = append(t.texts, sql[begin:])
	return t, nil
}

// with returns the statement with its parameters written by param.
func (t template) with(param func(number int) string) string {
	var b strings.Builder
	for i, text := range t.texts {
		b.WriteString(text)
		if i < len(t.params) {
			b.WriteString(param(t.params[i]))
		}
	}
	return b.String()
}

// quotedLen returns the length of the string, quoted name or comment that s
// begins with, or 0. One that does not end goes on to the end.
func quotedLen(s string) int {
	switch {
	case s[0] == '\'' || s[0] == '"':
		// A doubled quote reads as two strings, which ends at the same place.
		return until(s, 1, s[:1])
	case len(s) > 1 && (s[0] == 'E' || s[0] == 'e') && s[1] == '\'':
		return escapedLen(s)
	case strings.HasPrefix(s, "--"):
		return until(s, 2, "\n")
	case strings.HasPrefix(s, "/*"):
		return commentLen(s)
	case s[0] == '$':
		name, _, closed := strings.Cut(s[1:], "$")
		if tag := len(name) + 2; closed && wordLen(name) == len(name) && digitsLen(name) == 0 {
			return until(s, tag, s[:tag])
		}
	}
	return 0
}

func until(s string, from int, end string) int {
	if i := strings.Index(s[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(s)
}

// escapedLen measures a string in which a backslash escapes: E'it\'s'.
func escapedLen(s string) int {
	for i := 2; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\'':
			return i + 1
		}
	}
	return len(s)
}

// commentLen measures a comment, which may hold comments.
func commentLen(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(s)
}

// wordLen returns the length of the name or number that s begins with.
func wordLen(s string) int {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && c < 0x80 && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c != '$') {
			return i
		}
	}
	return len(s)
}

func digitsLen(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }
