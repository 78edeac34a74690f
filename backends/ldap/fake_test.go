package ldap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"tabard/table"
)

// fakeServer does what slapd does not: answers that are cut into ranges, a
// persistent search, garbage. answer writes to one search.
func fakeServer(t *testing.T, answer func(w *fakeConn, base, filter string, attrs []string)) string {
	t.Helper()
	return fake{search: answer}.serve(t)
}

// fake is what a server does. Without bind, a bind is the end of the connection.
type fake struct {
	search    func(w *fakeConn, base, filter string, attrs []string)
	bind      func(dn, password string) (code int)
	abandoned func(id int64)
}

// serve starts the server, and returns its URL.
func (f fake) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { f.session(c) })
		}
	})
	return "ldap://" + l.Addr().String()
}

// fakeConn is the side of the server that answers one search.
type fakeConn struct {
	net.Conn
	id int64
}

func (f fake) session(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		p, err := ber.ReadPacket(in)
		if err != nil || len(p.Children) < 2 {
			return
		}
		op := p.Children[1]
		id, ok := p.Children[0].Value.(int64)
		switch op.Tag {
		case ldap.ApplicationSearchRequest:
		case ldap.ApplicationAbandonRequest:
			if f.abandoned != nil {
				n, _ := ber.ParseInt64(op.Data.Bytes())
				f.abandoned(n)
			}
			continue
		case ldap.ApplicationBindRequest:
			if f.bind == nil {
				return
			}
			w := &fakeConn{c, id}
			w.result(ldap.ApplicationBindResponse, f.bind(op.Children[1].Data.String(), op.Children[2].Data.String()))
			continue
		default:
			return
		}
		filter, err := ldap.DecompileFilter(op.Children[6])
		if err != nil || !ok {
			return
		}
		var attrs []string
		for _, a := range op.Children[7].Children {
			attrs = append(attrs, a.Data.String())
		}
		f.search(&fakeConn{c, id}, op.Children[0].Data.String(), filter, attrs)
	}
}

func (w *fakeConn) send(op *ber.Packet) {
	m := ber.NewSequence("")
	m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, w.id, ""))
	m.AppendChild(op)
	_, _ = w.Write(m.Bytes()) // a client that is gone is the test's matter
}

// text makes an octet string.
func text(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func (w *fakeConn) entry(dn, name string, values ...string) {
	w.send(entryOp(dn, &ldap.EntryAttribute{Name: name, Values: values}))
}

func (w *fakeConn) done(code int) { w.result(ldap.ApplicationSearchResultDone, code) }

func (w *fakeConn) result(tag ber.Tag, code int) {
	op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, code, ""))
	op.AppendChild(text(""))
	op.AppendChild(text(""))
	w.send(op)
}

const fakeConf = "\nbasedn dc=x\ntimeout 500ms\nalias_filter (cn=%s)\nalias_attributes rfc822MailMember\n"

// Active Directory gives 1,500 values at once.
func TestRanges(t *testing.T) {
	const total, step = 3200, 1500
	url := fakeServer(t, func(w *fakeConn, base, _ string, attrs []string) {
		low := 0
		if base == "cn=g,dc=x" {
			if _, err := fmt.Sscanf(attrs[0], "rfc822MailMember;range=%d-*", &low); err != nil {
				t.Errorf("asks for %q", attrs)
			}
		}
		if base == "" {
			w.done(0)
			return
		}
		high, mark := low+step-1, fmt.Sprint(low+step-1)
		if high >= total-1 {
			high, mark = total-1, "*"
		}
		var values []string
		for i := low; i <= high; i++ {
			values = append(values, fmt.Sprintf("u%d", i))
		}
		w.entry("cn=g,dc=x", fmt.Sprintf("rfc822MailMember;range=%d-%s", low, mark), values...)
		w.done(0)
	})
	row, err := openText(t, "url "+url+fakeConf).Lookup(t.Context(), table.Alias, "g")
	if err != nil || len(row) != total || row[total-1] != fmt.Sprint("u", total-1) {
		t.Errorf("%d values, %v", len(row), err)
	}
}

// Whatever a server does wrong is a temporary error.
func TestFaultyServers(t *testing.T) {
	for name, answer := range map[string]func(w *fakeConn){
		"closes":       func(w *fakeConn) { w.Close() },
		"garbage":      func(w *fakeConn) { _, _ = io.WriteString(w, "HTTP/1.1 400 Bad Request\r\n\r\n"); w.Close() },
		"huge message": func(w *fakeConn) { _, _ = w.Write([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff}) },
		"says nothing": func(*fakeConn) {},
		"never ends":   func(w *fakeConn) { w.entry("cn=a,dc=x", "rfc822MailMember", "a") },
		"breaks off":   func(w *fakeConn) { w.entry("cn=a,dc=x", "rfc822MailMember", "a"); w.Close() },
		"busy":         func(w *fakeConn) { w.done(ldap.LDAPResultBusy) },
		"error":        func(w *fakeConn) { w.done(ldap.LDAPResultOperationsError) },
		"refers":       func(w *fakeConn) { w.done(ldap.LDAPResultReferral) },
		"a part": func(w *fakeConn) {
			w.entry("cn=a,dc=x", "rfc822MailMember", "a")
			w.done(ldap.LDAPResultTimeLimitExceeded)
		},
		"range unending": func(w *fakeConn) { w.entry("cn=a,dc=x", "rfc822MailMember;range=0-5"); w.done(0) },
		"too many": func(w *fakeConn) {
			for i := range maxEntries + 1 {
				w.entry(fmt.Sprintf("cn=%d,dc=x", i), "rfc822MailMember", "a")
			}
			w.done(0)
		},
	} {
		url := fakeServer(t, func(w *fakeConn, base, _ string, _ []string) {
			if base == "" {
				w.done(0)
				return
			}
			answer(w)
		})
		tab := openText(t, "url "+url+fakeConf)
		for range 3 {
			row, err := tab.Lookup(within(t, 3*time.Second), table.Alias, "a")
			if err == nil || errors.Is(err, table.ErrNotFound) || !strings.Contains(err.Error(), "alias_filter") {
				t.Errorf("%s: %q, %v", name, row, err)
			}
		}
	}
}

func TestPersistentSearch(t *testing.T) {
	follow := make(chan *fakeConn, 1)
	url := fakeServer(t, func(w *fakeConn, base, filter string, _ []string) {
		switch {
		case base == "":
			w.entry("", "supportedControl", oidPersistent)
			w.done(0)
		case filter == "(cn=*)":
			follow <- w
		}
	})
	changes, end := watching(t, openText(t, "url "+url+fakeConf))
	w := <-follow
	w.entry("cn=a,dc=x", "cn", "a")
	expect(t, changes, table.Change{Service: table.Alias})
	w.Close()
	select {
	case err := <-end:
		if err == nil || errors.Is(err, table.ErrUnsupported) {
			t.Errorf("the end: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the end is not noticed")
	}
}
