package sqltable

import "strings"

// Dialect is what tells the SQL of one database from that of another, as far as
// this package reads or writes it.
type Dialect struct {
	// Quotes are the characters, besides ' and ", that begin a quoted name: the
	// same ends it, or ] after [.
	Quotes string
	// Escapes says that E'...' is a string in which a backslash escapes.
	Escapes bool
	// Dollars says that $tag$...$tag$ is a string.
	Dollars bool
	// Nested says that a comment may hold comments.
	Nested bool
	// Numbered says that $1 is a parameter, and nothing else; otherwise ?, ?1,
	// :name, @name and $name are.
	Numbered bool
	// Mark begins a parameter in the statements that are sent: its number follows.
	Mark string

	// Fold is the function that takes the case from the names and addresses of
	// Tabard's own schema, or nothing where its columns compare without case.
	Fold string
	// Find is the function that finds a text in another: its place, 0 if none.
	Find string

	// AnyBytes says that keys can be asked for that are no UTF-8 text, alone. Else
	// they are in no database.
	AnyBytes bool
}

// marker is a parameter in a statement, as it is written there.
type marker struct {
	begin, end int
	brace      bool   // {name}
	name       string // without what marks it: "1" of $1, "" of ?
}

// markers returns the parameters of a statement. What looks like one in strings,
// quoted names and comments is none.
func (d Dialect) markers(sql string) []marker {
	var all []marker
	for i := 0; i < len(sql); {
		rest := sql[i:]
		if n := d.quotedLen(rest); n > 0 {
			i += n
			continue
		}
		if n := wordLen(rest); n > 0 {
			i += n // a $ within a name is no parameter
			continue
		}
		m, ok := d.marker(rest)
		if !ok {
			i++
			continue
		}
		m.begin, m.end = i, i+m.end
		all = append(all, m)
		i = m.end
	}
	return all
}

// marker reads the parameter that s begins with.
func (d Dialect) marker(s string) (marker, bool) {
	var name string
	switch c := s[0]; {
	case c == '{':
		n := wordLen(s[1:])
		if !strings.HasPrefix(s[1+n:], "}") {
			return marker{}, false
		}
		return marker{end: n + 2, brace: true, name: s[1 : 1+n]}, true
	case d.Numbered && c == '$':
		name = s[1 : 1+digitsLen(s[1:])]
	case d.Numbered:
	case c == '?':
		n := digitsLen(s[1:])
		return marker{end: 1 + n, name: s[1 : 1+n]}, true
	case c == ':' || c == '@' || c == '$':
		name = s[1 : 1+wordLen(s[1:])]
	}
	return marker{end: 1 + len(name), name: name}, name != ""
}

// joined reports whether a name or number stands right beside the parameter, which
// would become part of it.
func (m marker) joined(sql string) bool {
	return m.begin > 0 && wordLen("_"+sql[m.begin-1:m.begin]) == 2 || m.end < len(sql) && wordLen("_"+sql[m.end:m.end+1]) == 2
}

// quotedLen returns the length of the string, quoted name or comment that s
// begins with, or 0. One that does not end goes on to the end.
func (d Dialect) quotedLen(s string) int {
	switch {
	case s[0] == '[' && strings.Contains(d.Quotes, "["):
		return until(s, 1, "]")
	case s[0] == '\'' || s[0] == '"' || strings.IndexByte(d.Quotes, s[0]) >= 0:
		// A doubled quote reads as two strings, which ends at the same place.
		return until(s, 1, s[:1])
	case d.Escapes && len(s) > 1 && (s[0] == 'E' || s[0] == 'e') && s[1] == '\'':
		return escapedLen(s)
	case strings.HasPrefix(s, "--"):
		return until(s, 2, "\n")
	case strings.HasPrefix(s, "/*") && !d.Nested:
		return until(s, 2, "*/")
	case strings.HasPrefix(s, "/*"):
		return commentLen(s)
	case d.Dollars && s[0] == '$':
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
