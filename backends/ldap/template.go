package ldap

import (
	"errors"
	"fmt"
	"strings"

	"tabard/internal/address"
)

// part is a piece of a template: text as it stands, or what a placeholder is
// filled with.
type part struct {
	text string
	from byte // 's': the key; 'd', 'l', 'D': parts of it, see keyPart; 0: text
}

// template is text with placeholders: %s or %u for the key, %d for what follows
// its last @, %l for what comes before, %D for what follows the @ of a key that
// begins with it. %h, the table's name, and %% are text already.
type template []part

// parseTemplate reads a template for the table called name.
func parseTemplate(text, name string) (template, error) {
	var t template
	add := func(s string) {
		if n := len(t); n > 0 && t[n-1].from == 0 {
			t[n-1].text += s
		} else if s != "" {
			t = append(t, part{text: s})
		}
	}
	for {
		before, after, found := strings.Cut(text, "%")
		add(before)
		if !found {
			return t, nil
		}
		if after == "" {
			return nil, errors.New("ends with %; write %% for a percent sign")
		}
		switch c := after[0]; c {
		case 's', 'u':
			t = append(t, part{from: 's'})
		case 'd', 'l', 'D':
			t = append(t, part{from: c})
		case 'h':
			add(name)
		case '%':
			add("%")
		default:
			return nil, fmt.Errorf("unknown placeholder %q; expected one of %%s %%u %%d %%l %%D %%h %%%%", after[:1])
		}
		text = after[1:]
	}
}

// isDN reports whether the template makes a DN: an attribute, = and a placeholder.
func (t template) isDN() bool {
	if len(t) < 2 || t[0].from != 0 {
		return false
	}
	attr, _, ok := strings.Cut(t[0].text, "=")
	return ok && isAttribute(attr)
}

// keyed reports whether the template depends on the key.
func (t template) keyed() bool {
	for _, p := range t {
		if p.from != 0 {
			return true
		}
	}
	return false
}

// fill returns the template filled from a key, each piece of it brought into
// the target's syntax by escape. ok is false when the key lacks a part that the
// template asks for: no entry can be meant then.
func (t template) fill(key string, escape func(string) string) (s string, ok bool) {
	var b strings.Builder
	for _, p := range t {
		if p.from == 0 {
			b.WriteString(p.text)
			continue
		}
		v := keyPart(p.from, key)
		if v == "" {
			return "", false
		}
		b.WriteString(escape(v))
	}
	return b.String(), true
}

func keyPart(from byte, key string) string {
	if from == 's' {
		return key
	}
	local, domain := address.Split(key)
	switch {
	case from == 'l':
		return local
	case from == 'D' && local != "":
		return ""
	}
	return domain
}

// invertible reports whether a value tells the key that fills the template to
// it: the whole key occurs once, among text that means itself.
func (t template) invertible() bool {
	if t.isDN() {
		return false
	}
	keys := 0
	for _, p := range t {
		switch p.from {
		case 0:
			if strings.ContainsAny(p.text, `*\`) {
				return false
			}
		case 's':
			keys++
		default:
			return false
		}
	}
	return keys == 1
}

// invert returns the key that fills an invertible template to value, whatever
// the case.
func (t template) invert(value string) (key string, ok bool) {
	var around [2]string
	side := 0
	for _, p := range t {
		if p.from != 0 {
			side = 1
		} else {
			around[side] = p.text
		}
	}
	n := len(value) - len(around[0]) - len(around[1])
	if n <= 0 {
		return "", false
	}
	key = value[len(around[0]) : len(around[0])+n]
	return key, strings.EqualFold(value, around[0]+key+around[1])
}
