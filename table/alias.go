package table

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of an expansion, against rows that would not end.
const (
	maxNodeLen = 2048
	maxNodes   = 10000
)

// NodeKind is what an element of an alias expansion is.
type NodeKind uint8

// The kinds, in the order in which an element is tried.
const (
	NodeError   NodeKind = iota + 1 // error:NNN text: this reply at RCPT
	NodeInclude                     // include:/path: a file with more elements
	NodePipe                        // |command
	NodeFile                        // /path: append to a file
	NodeAddress                     // user@domain
	NodeUser                        // user name
)

// String returns the kind's name.
func (k NodeKind) String() string {
	names := [...]string{NodeError: "error", NodeInclude: "include", NodePipe: "pipe", NodeFile: "file", NodeAddress: "address", NodeUser: "user"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("node(%d)", uint8(k))
	}
	return names[k]
}

// Node is one element of an alias expansion. Text is the reply's text, the
// path, the command, the address or the user name.
type Node struct {
	Kind NodeKind
	Code int // NodeError: 400 to 599
	Text string
}

// String returns the element as it is written.
func (n Node) String() string {
	switch n.Kind {
	case NodeError:
		return fmt.Sprintf("error:%d %s", n.Code, n.Text)
	case NodeInclude:
		return "include:" + n.Text
	case NodePipe:
		return "|" + n.Text
	}
	return n.Text
}

// ErrNode is wrapped by every error in an element of an alias expansion.
var ErrNode = errors.New("bad alias element")

// ParseNodes reads an alias answer. Every column is a comma-separated list of
// its own, so that one row with a list and many rows mean the same.
func ParseNodes(row Row) ([]Node, error) {
	var nodes []Node
	for _, col := range row {
		var err error
		if nodes, err = appendNodes(nodes, col, maxNodes); err != nil {
			return nil, err
		}
	}
	if len(nodes) == 0 {
		// Delivering to nobody would lose mail without a word.
		return nil, fmt.Errorf("%w: nothing in the answer", ErrNode)
	}
	return nodes, nil
}

// ParseInclude reads an included file: a list on every line, '#' begins a
// comment line. More than limit elements are an error.
func ParseInclude(r io.Reader, limit int) ([]Node, error) {
	var nodes []Node
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), 64<<10)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		var err error
		if nodes, err = appendNodes(nodes, line, limit); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	return nodes, nil
}

func appendNodes(nodes []Node, list string, limit int) ([]Node, error) {
	elements, err := splitList(list)
	if err != nil {
		return nil, err
	}
	for _, e := range elements {
		if e == "" {
			continue
		}
		if len(nodes) == limit {
			return nil, fmt.Errorf("%w: more than %d elements", ErrNode, limit)
		}
		n, err := ParseNode(e)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// splitList cuts at commas that are neither quoted nor escaped. Quotes stay
// (a command keeps them for its shell), the backslash of an escape goes. Quotes
// count in commands and at the start of an element only: the apostrophe of
// "o'brien@example.org" is a letter.
func splitList(list string) ([]string, error) {
	var out []string
	var b strings.Builder
	var quote byte
	started, quoting := false, false // quoting: the element began with '|' or a quote
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case c == '\\' && i+1 < len(list):
			i++
			b.WriteByte(list[i])
			started = true
			continue
		case c == '\\':
			return nil, fmt.Errorf("%w: backslash at the end of the list", ErrNode)
		case c == ',' && quote == 0:
			out = append(out, strings.TrimSpace(b.String()))
			b.Reset()
			started, quoting = false, false
			continue
		}
		if !started && c != ' ' && c != '\t' {
			started = true
			quoting = c == '|' || c == '"' || c == '\''
		}
		if quoting {
			quote = nextQuote(quote, c)
		}
		b.WriteByte(c)
	}
	if quote != 0 {
		return nil, fmt.Errorf("%w: quote %c is not closed", ErrNode, quote)
	}
	return append(out, strings.TrimSpace(b.String())), nil
}

// nextQuote returns the open quote after c: 0 for none.
func nextQuote(open, c byte) byte {
	switch {
	case open == c:
		return 0
	case open == 0 && (c == '"' || c == '\''):
		return c
	}
	return open
}

// ParseNode reads one element.
func ParseNode(s string) (Node, error) {
	if len(s) > maxNodeLen {
		return Node{}, fmt.Errorf("%w: longer than %d bytes", ErrNode, maxNodeLen)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return Node{}, fmt.Errorf("%w: control characters or not UTF-8", ErrNode)
	}
	s = unwrapQuotes(strings.TrimSpace(s))
	if text, ok := cutPrefixes(s, "error:", ":error:"); ok {
		return parseErrorNode(text)
	}
	if text, ok := cutPrefixes(s, "include:", ":include:"); ok {
		if !path.IsAbs(text) {
			return Node{}, fmt.Errorf("%w: include %q is not an absolute path", ErrNode, text)
		}
		return Node{Kind: NodeInclude, Text: text}, nil
	}
	return parseTargetNode(s)
}

func parseTargetNode(s string) (Node, error) {
	switch {
	case strings.HasPrefix(s, "|"):
		command := strings.TrimSpace(s[1:])
		if command == "" {
			return Node{}, fmt.Errorf("%w: empty command", ErrNode)
		}
		return Node{Kind: NodePipe, Text: command}, nil
	case strings.HasPrefix(s, "/"):
		return Node{Kind: NodeFile, Text: s}, nil
	case isAliasAddress(s):
		return Node{Kind: NodeAddress, Text: s}, nil
	case isAliasUser(s):
		return Node{Kind: NodeUser, Text: s}, nil
	}
	return Node{}, fmt.Errorf("%w: %q is neither address, user, file, command, include nor error", ErrNode, s)
}

// parseErrorNode reads "NNN text".
func parseErrorNode(s string) (Node, error) {
	code, text, ok := strings.Cut(s, " ")
	text = strings.TrimSpace(text)
	if !ok || len(code) != 3 || code[0] != '4' && code[0] != '5' || !isDigit(code[1]) || !isDigit(code[2]) {
		return Node{}, fmt.Errorf("%w: error %q must be a 4xx or 5xx code and a text", ErrNode, s)
	}
	if r, _ := utf8.DecodeRuneInString(text); !unicode.IsLetter(r) && !unicode.IsDigit(r) {
		return Node{}, fmt.Errorf("%w: text of error %q must begin with a letter or digit", ErrNode, s)
	}
	n := int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	return Node{Kind: NodeError, Code: n, Text: text}, nil
}

// unwrapQuotes strips quotes around a whole element: "|command".
func unwrapQuotes(s string) string {
	if len(s) < 2 || s[0] != '"' && s[0] != '\'' || strings.IndexByte(s[1:], s[0]) != len(s)-2 {
		return s
	}
	return strings.TrimSpace(s[1 : len(s)-1])
}

func cutPrefixes(s string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		if len(s) >= len(p) && strings.EqualFold(s[:len(p)], p) {
			return strings.TrimSpace(s[len(p):]), true
		}
	}
	return s, false
}

// isAliasAddress reports whether s is user@domain of the characters allowed in
// aliases, which are harmless in commands and paths, or of RFC 6531.
func isAliasAddress(s string) bool {
	i := strings.LastIndexByte(s, '@')
	if i <= 0 || i == len(s)-1 {
		return false
	}
	return onlyOf(s[:i], "!#$%*/?|^{}`~&'+-=_.") && onlyOf(s[i+1:], ".-")
}

func isAliasUser(s string) bool { return s != "" && onlyOf(s, "_.+-") }

// onlyOf reports whether s has letters, digits, characters of more, and
// non-ASCII ones that print.
func onlyOf(s, more string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return false
		case r < utf8.RuneSelf:
			return !strings.ContainsRune(more, r)
		}
		return !unicode.IsGraphic(r) || unicode.IsSpace(r)
	})
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
