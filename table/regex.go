package table

import (
	"fmt"
	"regexp"
	"strings"
)

// CompileRegex compiles an entry of service regex: a POSIX extended regular
// expression (IEEE Std 1003.1, 9.4) that matches anywhere in the subject; the
// prefix "(?i)" ignores case. Patterns and subjects keep their case, unlike in
// OpenSMTPD, which lower-cases both. Go's \d, \w, \b and the like work too,
// outside brackets, where a backslash is a backslash.
func CompileRegex(pattern string) (*regexp.Regexp, error) {
	if strings.ContainsAny(pattern, "\x00\r\n") {
		return nil, fmt.Errorf("pattern %q: NUL, CR or LF in it", pattern)
	}
	re, err := regexp.Compile(escapeBrackets(pattern))
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return re, nil
}

// escapeBrackets doubles the backslashes in bracket expressions, where POSIX
// has no escapes.
func escapeBrackets(p string) string {
	if !strings.Contains(p, "[") || !strings.Contains(p, `\`) {
		return p
	}
	var b strings.Builder
	for i := 0; i < len(p); {
		switch {
		case p[i] == '\\' && i+1 < len(p):
			b.WriteString(p[i : i+2])
			i += 2
		case p[i] == '[':
			n := bracketLen(p[i:])
			b.WriteString(strings.ReplaceAll(p[i:i+n], `\`, `\\`))
			i += n
		default:
			b.WriteByte(p[i])
			i++
		}
	}
	return b.String()
}

// bracketLen returns the length of the bracket expression that p begins with.
// A ']' that comes first is a member; classes as [:alpha:] hold one of their own.
func bracketLen(p string) int {
	i := 1
	if i < len(p) && p[i] == '^' {
		i++
	}
	if i < len(p) && p[i] == ']' {
		i++
	}
	for i < len(p) {
		if strings.HasPrefix(p[i:], "[:") {
			if end := strings.Index(p[i+2:], ":]"); end >= 0 {
				i += end + 4
				continue
			}
		}
		if p[i] == ']' {
			return i + 1
		}
		i++
	}
	return len(p)
}
