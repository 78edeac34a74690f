package ldap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// prepare encodes beforehand what it can.
func (f *filter) prepare() error {
	if err := f.root.prepare(); err != nil {
		return err
	}
	f.varying = f.root
	if f.root.op != '&' || !f.root.keyed() {
		return nil
	}
	f.varying = &node{op: '&'}
	for _, k := range f.root.kids {
		if k.keyed() {
			f.varying.kids = append(f.varying.kids, k)
		} else {
			f.fixed = append(f.fixed, k.encoded...)
		}
	}
	if len(f.varying.kids) == 1 {
		f.varying = f.varying.kids[0]
	}
	return nil
}

func (n *node) prepare() error {
	if !n.keyed() {
		var b strings.Builder
		n.write(&b, "")
		var err error
		n.encoded, err = compile(b.String())
		return err
	}
	for _, k := range n.kids {
		if err := k.prepare(); err != nil {
			return err
		}
	}
	if n.op != 0 || n.rule != "=" {
		return nil
	}
	raw := slices.Clone(n.value)
	for i, p := range raw {
		raw[i].text = unescape(p.text)
		if strings.Contains(p.text, "*") || strings.Contains(raw[i].text, `\`) {
			return nil // substrings, or an escape that is not whole
		}
	}
	n.equal = raw
	return nil
}

func compile(filter string) ([]byte, error) {
	p, err := ldap.CompileFilter(filter)
	if err != nil {
		return nil, fmt.Errorf("%q is not a filter: %w", filter, err)
	}
	return p.Bytes(), nil
}

// encodeAny returns the filter for any of several keys, as it goes to the server.
// What does not depend on the key is said once: a server would evaluate it for
// each. n is the number of keys that an entry can match at all.
func (f *filter) encodeAny(keys []string) (b []byte, n int, err error) {
	e := encoder{make([]byte, 0, 64+len(f.fixed)+64*len(keys))}
	and, or := -1, -1
	if f.fixed != nil {
		and = e.open(tagAnd)
	}
	if len(keys) > 1 {
		or = e.open(tagOr)
	}
	for _, k := range keys {
		ok, err := f.varying.encode(&e, k)
		if err != nil {
			return nil, 0, err
		}
		if ok {
			n++
		}
	}
	if or >= 0 {
		e.shut(or)
	}
	e.b = append(e.b, f.fixed...)
	if and >= 0 {
		e.shut(and)
	}
	return e.b, n, nil
}

// encode writes the node for a key, or nothing, when no entry can match it.
func (n *node) encode(e *encoder, key string) (ok bool, err error) {
	begin := len(e.b)
	switch {
	case n.encoded != nil:
		e.b = append(e.b, n.encoded...)
		return true, nil
	case n.equal != nil:
		ok = n.encodeEqual(e, key)
	case n.op == 0:
		ok, err = n.encodeText(e, key)
	default:
		ok, err = n.encodeSet(e, key)
	}
	if !ok {
		e.b = e.b[:begin]
	}
	return ok, err
}

func (n *node) encodeEqual(e *encoder, key string) bool {
	mark := e.open(tagEqual)
	e.octets(n.attr)
	value := e.open(tagOctets)
	for _, p := range n.equal {
		text := p.text
		if p.from != 0 {
			if text = keyPart(p.from, key); text == "" {
				return false
			}
			if n.value.isDN() {
				text = ldap.EscapeDN(text)
			}
		}
		e.b = append(e.b, text...)
	}
	e.shut(value)
	e.shut(mark)
	return true
}

// encodeText is for what is not a plain comparison.
func (n *node) encodeText(e *encoder, key string) (bool, error) {
	var text strings.Builder
	if !n.write(&text, key) {
		return false, nil
	}
	b, err := compile(text.String())
	e.b = append(e.b, b...)
	return err == nil, err
}

func (n *node) encodeSet(e *encoder, key string) (bool, error) {
	mark := e.open(map[byte]byte{'&': tagAnd, '|': tagOr, '!': tagNot}[n.op])
	written := 0
	for _, k := range n.kids {
		ok, err := k.encode(e, key)
		switch {
		case err != nil:
			return false, err
		case ok:
			written++
		case n.op != '|':
			return false, nil
		}
	}
	e.shut(mark)
	return written > 0, nil
}
