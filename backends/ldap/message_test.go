package ldap

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// What is written is what the library reads, and what it would write.
func TestSearchMessage(t *testing.T) {
	long := strings.Repeat("x", 300)
	page := ldap.NewControlPaging(500)
	page.SetCookie([]byte("here"))
	for _, r := range []*request{
		{base: "dc=x", scope: ldap.ScopeWholeSubtree, filter: "(cn=a)", attrs: []string{"mail", "uid"}},
		{filter: "(objectClass=*)", some: true},
		{base: long, scope: ldap.ScopeSingleLevel, filter: "(&(cn=" + long + ")(!(o=*x*)))", attrs: []string{long}, page: page},
	} {
		filter, err := compile(r.filter)
		if err != nil {
			t.Fatal(err)
		}
		var e encoder
		e.search(firstID, r, filter, 300)
		p, err := ber.DecodePacketErr(e.b)
		if err != nil {
			t.Fatalf("% x: %v", e.b, err)
		}
		want := ber.NewSequence("")
		want.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, firstID, ""))
		attrs, limit := r.attrs, 0
		if attrs == nil {
			attrs = []string{"1.1"}
		}
		if r.some {
			limit = 1
		}
		op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchRequest, nil, "")
		op.AppendChild(text(r.base))
		for i, n := range []int{r.scope, ldap.NeverDerefAliases, limit, 300} {
			op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, []ber.Tag{ber.TagEnumerated, ber.TagEnumerated, ber.TagInteger, ber.TagInteger}[i], n, ""))
		}
		op.AppendChild(ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, false, ""))
		f, err := ldap.CompileFilter(r.filter)
		if err != nil {
			t.Fatal(err)
		}
		op.AppendChild(f)
		list := ber.NewSequence("")
		for _, a := range attrs {
			list.AppendChild(text(a))
		}
		op.AppendChild(list)
		want.AppendChild(op)
		if r.page != nil {
			controls := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
			controls.AppendChild(r.page.Encode())
			want.AppendChild(controls)
		}
		if !bytes.Equal(p.Bytes(), want.Bytes()) {
			t.Errorf("%s:\n% x, want\n% x", r.filter, p.Bytes(), want.Bytes())
		}
	}
	var e encoder
	e.abandon(abandonID, firstID)
	if got := fmt.Sprintf("% x", e.b); got != "30 84 00 00 00 0c 02 04 7f ff ff ff 50 04 40 00 00 00" {
		t.Errorf("abandon: %s", got)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int]string{0: "02 01 00", 127: "02 01 7f", 128: "02 02 00 80", 32767: "02 02 7f ff", 1 << 23: "02 04 00 80 00 00", 1 << 40: "02 04 7f ff ff ff", -1: "02 01 00"} {
		var e encoder
		e.number(tagInteger, n)
		if got := fmt.Sprintf("% x", e.b); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// message makes an answer as the fake server sends it.
func message(op *ber.Packet) string {
	m := ber.NewSequence("")
	m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, firstID, ""))
	m.AppendChild(op)
	return string(m.Bytes())
}

func entryOp(dn string, attrs ...*ldap.EntryAttribute) *ber.Packet {
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	op.AppendChild(text(dn))
	list := ber.NewSequence("")
	for _, a := range attrs {
		one, set := ber.NewSequence(""), ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range a.Values {
			set.AppendChild(text(v))
		}
		one.AppendChild(text(a.Name))
		one.AppendChild(set)
		list.AppendChild(one)
	}
	op.AppendChild(list)
	return op
}

func TestEntryMessage(t *testing.T) {
	attrs := []*ldap.EntryAttribute{
		{Name: "cn", Values: []string{"a", strings.Repeat("long", 100)}}, {Name: "empty", Values: []string{}}, {Name: "bin;binary", Values: []string{"\x00\xff", ""}},
	}
	whole := message(entryOp("cn=a,dc=x", attrs...))
	r, ok := parseResponse(whole)
	e, eok := parseEntry(r.op.body)
	if !ok || !eok || r.op.tag != opEntry || e.DN != "cn=a,dc=x" || !reflect.DeepEqual(e.Attributes, attrs) {
		t.Errorf("%v, %v, %+v", ok, eok, e)
	}
	// What is appended to one attribute's values does not end up in the next.
	_ = append(e.Attributes[0].Values, "c")
	if e.Attributes[2].Values[0] != "\x00\xff" {
		t.Error("values overlap")
	}
	// Whatever is cut off is noticed, wherever.
	body := r.op.body
	for i := range len(body) {
		if _, ok := parseEntry(body[:i]); ok {
			t.Errorf("%d bytes of %d are an entry", i, len(body))
		}
	}
	for i := range len(whole) {
		if _, ok := parseResponse(whole[:i]); ok {
			t.Errorf("%d bytes of %d are a message", i, len(whole))
		}
	}
	for _, bad := range []string{"", "\x30", "\x30\x80", "\x30\x84\xff\xff\xff\xff", "\x30\x89aaaaaaaaa", "\x1f\x81\x00"} {
		if _, _, ok := next(bad); ok {
			t.Errorf("% x is an element", bad)
		}
	}
}

// FuzzMessage holds what is read of hostile answers against the library's reading.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(message(entryOp("cn=a", &ldap.EntryAttribute{Name: "cn", Values: []string{"a", "b"}}))))
	done := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultDone, nil, "")
	done.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, 32, ""))
	done.AppendChild(text("dc=x"))
	done.AppendChild(text("no"))
	f.Add([]byte(message(done)))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &exchange{budget: (&request{}).budget()}
		last, ok := x.take(string(b))
		if !ok || len(x.entries) == 0 {
			return
		}
		if last != (x.err != nil) {
			t.Fatalf("an entry ends the search: %v", x.err)
		}
		p, err := ber.DecodePacketErr(b)
		if err != nil {
			return // the library is stricter with what is inside of values
		}
		if dn := p.Children[1].Children[0].Data.String(); dn != x.entries[0].DN {
			t.Fatalf("DN %q, the library reads %q", x.entries[0].DN, dn)
		}
	})
}

// A value that is kept does not keep the rest of its entry in memory.
func TestValuesAreTheirOwn(t *testing.T) {
	r, ok := parseResponse(message(entryOp("cn=a", &ldap.EntryAttribute{Name: "cn", Values: []string{"value"}})))
	e, eok := parseEntry(r.op.body)
	if !ok || !eok {
		t.Fatal("no entry")
	}
	kept, err := textValues(e, "cn")
	if err != nil || len(kept) != 1 || kept[0] != "value" {
		t.Fatalf("%q, %v", kept, err)
	}
	if unsafe.StringData(kept[0]) == unsafe.StringData(e.Attributes[0].Values[0]) {
		t.Error("it is a part of the message")
	}
}
