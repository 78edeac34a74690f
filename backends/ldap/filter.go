package ldap

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// maxDepth bounds how deep filters nest.
const maxDepth = 50

// node is a piece of a filter template: a set of others, or one assertion.
type node struct {
	op   byte // '&', '|' or '!' over kids; 0: an assertion
	kids []*node

	attr  string   // as written, with options
	rule  string   // what stands between attribute and value: "=", ">=", ":1.2.3:="
	value template // text in it is in the filter's own syntax

	encoded []byte   // for the wire, when it does not depend on the key
	equal   template // value without escapes, when the node is an equality
}

// filter is a search filter (RFC 4515) with placeholders in assertion values.
type filter struct {
	root *node
	// tell holds what of the filter decides which key an entry belongs to; nil
	// when that cannot be told from the entry. See telling.
	tell *node

	varying *node  // root without those of its parts that must hold for any key
	fixed   []byte // and these, encoded
}

// parseFilter reads a filter template. Parentheses around it may be left out.
func parseFilter(text, name string) (*filter, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "(") {
		text = "(" + text + ")"
	}
	p := filterParser{text: text, name: name}
	root, err := p.node(0)
	if err == nil && p.pos != len(text) {
		err = fmt.Errorf("%q follows the filter", text[p.pos:])
	}
	if err != nil {
		return nil, err
	}
	f := &filter{root: root}
	f.tell = telling(root)
	s, ok := f.expand("a@b")
	if !ok {
		s, _ = f.expand("@b")
	}
	if _, err := ldap.CompileFilter(s); err != nil {
		return nil, fmt.Errorf("%q is not a filter: %w", text, err)
	}
	return f, f.prepare()
}

type filterParser struct {
	text string
	name string
	pos  int
}

func (p *filterParser) at(c byte) bool { return p.pos < len(p.text) && p.text[p.pos] == c }

func (p *filterParser) expect(c byte) error {
	if !p.at(c) {
		return fmt.Errorf("filter: expected %q at %q", c, p.text[p.pos:])
	}
	p.pos++
	return nil
}

func (p *filterParser) blanks() {
	for p.at(' ') || p.at('\t') {
		p.pos++
	}
}

func (p *filterParser) node(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("filter: nested more than %d deep", maxDepth)
	}
	if err := p.expect('('); err != nil {
		return nil, err
	}
	p.blanks()
	if !p.at('&') && !p.at('|') && !p.at('!') {
		return p.assertion()
	}
	n := &node{op: p.text[p.pos]}
	p.pos++
	for p.blanks(); p.at('('); p.blanks() {
		kid, err := p.node(depth + 1)
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, kid)
	}
	if len(n.kids) == 0 || n.op == '!' && len(n.kids) != 1 {
		return nil, fmt.Errorf("filter: %q has %d parts", n.op, len(n.kids))
	}
	return n, p.expect(')')
}

// assertion reads attr=value up to the closing parenthesis, which a value can
// only hold escaped.
func (p *filterParser) assertion() (*node, error) {
	text, _, found := strings.Cut(p.text[p.pos:], ")")
	if !found {
		return nil, errors.New("filter: a ) is missing")
	}
	p.pos += len(text) + 1
	left, value, found := strings.Cut(text, "=")
	if !found || strings.ContainsAny(text, "(") {
		return nil, fmt.Errorf("filter: %q is not attribute=value", text)
	}
	n := &node{rule: "="}
	switch {
	case strings.HasSuffix(left, ":"):
		attr, rest, _ := strings.Cut(left, ":")
		left, n.rule = attr, ":"+rest+"="
	case left != "" && strings.Contains("<>~", left[len(left)-1:]):
		left, n.rule = left[:len(left)-1], left[len(left)-1:]+"="
	}
	n.attr = strings.TrimSpace(left)
	if strings.Contains(left, "%") || strings.Contains(n.rule, "%") {
		return nil, fmt.Errorf("filter: placeholder before the = of %q", text)
	}
	if !isAttribute(n.attr) && (n.attr != "" || !strings.HasPrefix(n.rule, ":")) {
		return nil, fmt.Errorf("filter: %q is not the name of an attribute", n.attr)
	}
	var err error
	if n.value, err = parseTemplate(value, ldap.EscapeFilter(p.name)); err != nil {
		return nil, fmt.Errorf("filter: %q %w", text, err)
	}
	return n, nil
}

// isAttribute reports whether s can be an attribute description (RFC 4512, 2.5):
// a name or an object identifier, and options.
func isAttribute(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == ';', c == '_':
		default:
			return false
		}
	}
	return s != "" && s[0] != ';' && s[0] != '-'
}

// keyed reports whether the node depends on the key.
func (n *node) keyed() bool {
	return n.value.keyed() || slices.ContainsFunc(n.kids, (*node).keyed)
}

// expand returns the filter for a key; ok is false when no entry can match it. Of
// alternatives, those that ask for a part that the key lacks are left out.
func (f *filter) expand(key string) (s string, ok bool) {
	var b strings.Builder
	if !f.root.write(&b, key) {
		return "", false
	}
	return b.String(), true
}

func (n *node) write(b *strings.Builder, key string) bool {
	b.WriteByte('(')
	if n.op == 0 {
		v, ok := n.value.fill(key, n.escape)
		b.WriteString(n.attr + n.rule + v + ")")
		return ok
	}
	b.WriteByte(n.op)
	written := 0
	for _, k := range n.kids {
		var part strings.Builder
		if k.write(&part, key) {
			b.WriteString(part.String())
			written++
		} else if n.op != '|' {
			return false
		}
	}
	b.WriteByte(')')
	return written > 0
}

// escape keeps a piece of a key from being read as syntax of the filter, and, in
// a value that is a DN, of that.
func (n *node) escape(s string) string {
	if n.value.isDN() {
		s = ldap.EscapeDN(s)
	}
	return ldap.EscapeFilter(s)
}

// any returns the filter that whatever could match for some key matches.
func (f *filter) any() string {
	var b strings.Builder
	f.root.writeAny(&b)
	return b.String()
}

func (n *node) writeAny(b *strings.Builder) {
	switch {
	case !n.keyed():
		n.write(b, "")
	case n.op == '!' || n.op == 0 && n.attr == "":
		b.WriteString("(objectClass=*)")
	case n.op == 0:
		b.WriteString("(" + n.attr + "=*)")
	default:
		b.WriteString("(" + string(n.op))
		for _, k := range n.kids {
			k.writeAny(b)
		}
		b.WriteString(")")
	}
}

// attributes returns the attributes that the node compares.
func (n *node) attributes() []string {
	if n == nil {
		return nil
	}
	var all []string
	if n.attr != "" {
		all = append(all, n.attr)
	}
	for _, k := range n.kids {
		all = append(all, k.attributes()...)
	}
	return all
}

// assertions returns the assertions in the node.
func (n *node) assertions() []*node {
	if n.op == 0 {
		return []*node{n}
	}
	var all []*node
	for _, k := range n.kids {
		all = append(all, k.assertions()...)
	}
	return all
}

// telling returns what of a filter an entry must be held against to tell for
// which of several keys the server found it, or nil when a client cannot tell.
// What must hold whatever the key is needs no second look.
func telling(n *node) *node {
	if n.op == '&' {
		t := &node{op: '&'}
		for _, k := range n.kids {
			if !k.keyed() {
				continue
			}
			kept := telling(k)
			if kept == nil {
				return nil
			}
			t.kids = append(t.kids, kept)
		}
		if len(t.kids) == 0 {
			return nil
		}
		return t
	}
	if !n.keyed() || !n.comparable() {
		return nil
	}
	return n
}

// comparable reports whether a client can evaluate the node: equality, presence
// and substrings, joined by & and |.
func (n *node) comparable() bool {
	switch n.op {
	case 0:
		return n.rule == "="
	case '!':
		return false
	}
	return !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.comparable() })
}

// holds evaluates the node for a key. exact is false when a comparison passed
// only because case or blanks were disregarded.
func (n *node) holds(key string, values func(attr string) []string) (ok, exact bool) {
	switch n.op {
	case '&':
		exact = true
		for _, k := range n.kids {
			kid, e := k.holds(key, values)
			if !kid {
				return false, false
			}
			exact = exact && e
		}
		return true, exact
	case '|':
		for _, k := range n.kids {
			kid, e := k.holds(key, values)
			ok, exact = ok || kid, exact || kid && e
		}
		return ok, exact
	}
	pieces, filled := n.pieces(key)
	if !filled {
		return false, false
	}
	for _, v := range values(n.attr) {
		hit, e := matchPieces(pieces, v)
		ok, exact = ok || hit, exact || hit && e
	}
	return ok, exact
}

// pieces returns the assertion's value for a key, cut at the wildcards and
// without escapes.
func (n *node) pieces(key string) ([]string, bool) {
	s, ok := n.value.fill(key, n.escape)
	if !ok {
		return nil, false
	}
	pieces := strings.Split(s, "*")
	for i := range pieces {
		pieces[i] = unescape(pieces[i])
	}
	return pieces, true
}

// unescape undoes \XX.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.Write(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// matchPieces compares as caseIgnoreMatch and caseIgnoreSubstringsMatch do.
func matchPieces(pieces []string, value string) (ok, exact bool) {
	if len(pieces) == 1 {
		return normal(pieces[0]) == normal(value), pieces[0] == value
	}
	rest, last := normal(value), len(pieces)-1
	for i, p := range pieces {
		p = strings.ToLower(p)
		switch {
		case i == 0:
			if !strings.HasPrefix(rest, p) {
				return false, false
			}
			rest = rest[len(p):]
		case i == last:
			return strings.HasSuffix(rest, p), false
		default:
			_, after, found := strings.Cut(rest, p)
			if !found {
				return false, false
			}
			rest = after
		}
	}
	return true, false
}

// normal brings a value to the form in which case and the number of blanks do
// not matter.
func normal(s string) string {
	if !tidy(s) {
		s = strings.Join(strings.Fields(s), " ")
	}
	return strings.ToLower(s)
}

// tidy reports whether s is of a kind that nearly every key and value is: printable
// ASCII without blanks at its ends or side by side.
func tidy(s string) bool {
	blank := true
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' || c == ' ' && blank {
			return false
		}
		blank = c == ' '
	}
	return !blank || s == ""
}
