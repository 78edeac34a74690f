package ldap

import (
	"encoding/binary"
	"math"
	"math/bits"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// Searches are written and read here and not by the library, which makes a tree
// of packets of each message: that was most of what a look-up cost. Only what
// every search has is read in place; results that are no success, and controls,
// are rare and left to the library's decoder.

// Tags of what searches consist of (RFC 4511, 4.5).
const (
	tagSequence   = 0x30
	tagSet        = 0x31
	tagBoolean    = 0x01
	tagInteger    = 0x02
	tagOctets     = 0x04
	tagEnumerated = 0x0a
	tagControls   = 0xa0
	tagAnd        = 0xa0
	tagOr         = 0xa1
	tagNot        = 0xa2
	tagEqual      = 0xa3

	opSearch    = 0x60 | ldap.ApplicationSearchRequest
	opEntry     = 0x60 | ldap.ApplicationSearchResultEntry
	opDone      = 0x60 | ldap.ApplicationSearchResultDone
	opReference = 0x60 | ldap.ApplicationSearchResultReference
	opAbandon   = 0x40 | ldap.ApplicationAbandonRequest
)

// encoder writes BER. Lengths that are not known beforehand take four bytes.
type encoder struct{ b []byte }

// open begins an element; its mark is for shut.
func (e *encoder) open(tag byte) (mark int) {
	e.b = append(e.b, tag, 0x84, 0, 0, 0, 0)
	return len(e.b)
}

func (e *encoder) shut(mark int) {
	binary.BigEndian.PutUint32(e.b[mark-4:], uint32(len(e.b)-mark))
}

func (e *encoder) octets(s string) {
	if len(s) < 0x80 {
		e.b = append(e.b, tagOctets, byte(len(s)))
	} else {
		e.b = binary.BigEndian.AppendUint32(append(e.b, tagOctets, 0x84), uint32(len(s)))
	}
	e.b = append(e.b, s...)
}

// number writes a number of up to 31 bits in as few bytes as it takes, as BER
// demands.
func (e *encoder) number(tag byte, n int) {
	n = min(max(n, 0), math.MaxInt32)
	size := bits.Len(uint(n))/8 + 1
	e.b = append(e.b, tag, byte(size))
	for i := size - 1; i >= 0; i-- {
		e.b = append(e.b, byte(n>>(8*i)))
	}
}

// search writes a search request whose filter is encoded already.
func (e *encoder) search(id int, r *request, filter []byte, seconds int) {
	message := e.open(tagSequence)
	e.number(tagInteger, id)
	op := e.open(opSearch)
	e.octets(r.base)
	e.b = append(e.b, tagEnumerated, 1, byte(r.scope), tagEnumerated, 1, ldap.NeverDerefAliases)
	limit := 0
	if r.some {
		limit = 1
	}
	e.number(tagInteger, limit)
	e.number(tagInteger, seconds)
	e.b = append(e.b, tagBoolean, 1, 0) // values, too
	e.b = append(e.b, filter...)
	attrs := e.open(tagSequence)
	for _, a := range r.attrs {
		e.octets(a)
	}
	if len(r.attrs) == 0 {
		e.octets("1.1") // none (RFC 4511, 4.5.1.8)
	}
	e.shut(attrs)
	e.shut(op)
	if r.page != nil {
		controls := e.open(tagControls)
		e.b = append(e.b, r.page.Encode().Bytes()...)
		e.shut(controls)
	}
	e.shut(message)
}

// abandon writes a request to end a search (RFC 4511, 4.11).
func (e *encoder) abandon(id, search int) {
	message := e.open(tagSequence)
	e.number(tagInteger, id)
	e.number(opAbandon, search)
	e.shut(message)
}

// element is one piece of BER: a tag, and what is in it.
type element struct {
	tag  byte
	body string
}

// next takes the first element off s. ok is false when s does not begin with a
// whole one, or with a tag of several bytes, which LDAP does not have.
func next(s string) (e element, rest string, ok bool) {
	if len(s) < 2 || s[0]&0x1f == 0x1f {
		return element{}, "", false
	}
	n, head := int(s[1]), 2
	if n >= 0x80 {
		long := n & 0x7f
		if long == 0 || long > 8 || len(s) < 2+long {
			return element{}, "", false
		}
		n, head = 0, 2+long
		for _, c := range []byte(s[2:head]) {
			if n = n<<8 | int(c); n > maxMessage {
				return element{}, "", false
			}
		}
	}
	if n > len(s)-head {
		return element{}, "", false
	}
	return element{s[0], s[head : head+n]}, s[head+n:], true
}

// want takes an element with a certain tag off s.
func want(s string, tag byte) (body, rest string, ok bool) {
	e, rest, ok := next(s)
	return e.body, rest, ok && e.tag == tag
}

// response is a message that answers a search.
type response struct {
	op       element
	controls []ldap.Control
}

// parseResponse takes a message apart.
func parseResponse(message string) (r response, ok bool) {
	body, _, ok := want(message, tagSequence)
	if !ok {
		return r, false
	}
	if _, body, ok = want(body, tagInteger); !ok {
		return r, false
	}
	if r.op, body, ok = next(body); !ok || body == "" {
		return r, ok
	}
	r.controls, ok = parseControls(body)
	return r, ok
}

func parseControls(s string) (all []ldap.Control, ok bool) {
	p, err := ber.DecodePacketErr([]byte(s))
	if err != nil || p.Tag != 0 {
		return nil, false
	}
	for _, child := range p.Children {
		c, err := ldap.DecodeControl(child)
		if err != nil {
			return nil, false
		}
		all = append(all, c)
	}
	return all, true
}

// parseEntry reads a search result entry (RFC 4511, 4.5.2). Its texts share the
// message's memory.
func parseEntry(s string) (*ldap.Entry, bool) {
	dn, s, ok := want(s, tagOctets)
	if !ok {
		return nil, false
	}
	list, _, ok := want(s, tagSequence)
	if !ok {
		return nil, false
	}
	// Counted first, everything is in three pieces of memory.
	attrs, values, ok := countValues(list)
	if !ok {
		return nil, false
	}
	kept := make([]ldap.EntryAttribute, attrs)
	e := &ldap.Entry{DN: dn, Attributes: make([]*ldap.EntryAttribute, attrs)}
	texts := make([]string, 0, values)
	for i := range kept {
		var one, set string
		one, list, _ = want(list, tagSequence)
		kept[i].Name, one, _ = want(one, tagOctets)
		set, _, _ = want(one, tagSet)
		first := len(texts)
		for set != "" {
			var v string
			v, set, _ = want(set, tagOctets)
			texts = append(texts, v)
		}
		kept[i].Values = texts[first:len(texts):len(texts)]
		e.Attributes[i] = &kept[i]
	}
	return e, true
}

// countValues counts the attributes of an entry and their values, and is where
// their form is checked.
func countValues(list string) (attrs, values int, ok bool) {
	for list != "" {
		var one, set string
		if one, list, ok = want(list, tagSequence); !ok {
			return 0, 0, false
		}
		if _, one, ok = want(one, tagOctets); !ok {
			return 0, 0, false
		}
		if set, _, ok = want(one, tagSet); !ok {
			return 0, 0, false
		}
		for set != "" {
			if _, set, ok = want(set, tagOctets); !ok {
				return 0, 0, false
			}
			values++
		}
		attrs++
	}
	return attrs, values, true
}

// parseDone returns nil when a search ended well, else the library's error.
func parseDone(message string, op element) error {
	if code, _, ok := want(op.body, tagEnumerated); ok && code == "\x00" {
		return nil
	}
	p, err := ber.DecodePacketErr([]byte(message))
	if err != nil {
		return errMessage
	}
	return ldap.GetLDAPError(p)
}
