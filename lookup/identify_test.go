package lookup

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"tabard/internal/rpc"
	"tabard/table"
)

const identifyConf = `
table anchors sqlite:/mem/anchors
table certs sqlite:/mem/certs
table people sqlite:/mem/people
listen on 127.0.0.1 port 25 tls-require pki <certs> ca <anchors> cert-auth <people>
listen on 127.0.0.1 port 26 tls-require verify pki <certs> ca <anchors>
action "out" relay
match from any for any action "out"
`

// client issues a client's certificate.
func (a *authority) client(change func(*x509.Certificate)) (der [][]byte, leaf *x509.Certificate) {
	text := a.leafOf(func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.Subject.Organization, c.Subject.CommonName = []string{"Example"}, "Printer 7"
		c.EmailAddresses = []string{"Printer@Example.org", "second@example.org"}
		if change != nil {
			change(c)
		}
	}, "printer.example.org")
	der = ders(text)
	leaf, err := x509.ParseCertificate(der[0])
	if err != nil {
		a.t.Fatal(err)
	}
	return der, leaf
}

func TestIdentify(t *testing.T) {
	f := newFixture(t)
	s := f.service(identifyConf)
	root, stranger := newAuthority(t, "root", nil), newAuthority(t, "stranger", nil)
	f.table("anchors").set(table.CA, "*", root.pem())
	chain, leaf := root.client(nil)
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	people := f.table("people")
	// The later an identity comes, the sooner it is set: each overrules those before.
	for _, id := range []string{"dn:cn=printer 7,o=example", "dns:printer.example.org", "email:second@example.org", "email:printer@example.org", "sha256:" + hex.EncodeToString(spki[:])} {
		people.set(table.CertAuth, id, "user of "+id)
		people.tell(table.CertAuth, id)
		got, err := s.Identify(t.Context(), VerifyRequest{Use: UseClient, Chain: chain})
		if err != nil || got.User != "user of "+id || !strings.EqualFold(got.By, id) || got.Verdict.State != Verified {
			t.Errorf("by %s: %+v, %v", id, got, err)
		}
	}
	if got, err := s.Identify(t.Context(), VerifyRequest{Listener: 1, Use: UseClient, Chain: chain}); err != nil || got.User != "" || got.Verdict.State != Verified {
		t.Errorf("without cert-auth: %+v, %v", got, err)
	}
	if got, err := s.Identify(t.Context(), VerifyRequest{Use: UseClient}); err != nil || got != (Identity{}) {
		t.Errorf("without a certificate: %+v, %v", got, err)
	}
	// The same names from another authority are nobody's.
	other, _ := stranger.client(nil)
	if got, err := s.Identify(t.Context(), VerifyRequest{Use: UseClient, Chain: other}); err != nil || got.User != "" || got.Verdict.State != Failed {
		t.Errorf("of a stranger: %+v, %v", got, err)
	}
	in, _, _ := edges(t, s)
	if got, err := in.Identify(t.Context(), VerifyRequest{Use: UseClient, Chain: chain}); err != nil || got.User == "" {
		t.Errorf("over the edge: %+v, %v", got, err)
	}
	if _, err := in.Identify(t.Context(), VerifyRequest{Use: UseServer, Chain: chain}); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("a server's certificate: %v", err)
	}
}

// A table that is away denies nobody, and what it said before serves.
func TestIdentifyWhileAway(t *testing.T) {
	f := newFixture(t)
	s := f.service(identifyConf)
	root := newAuthority(t, "root", nil)
	f.table("anchors").set(table.CA, "*", root.pem())
	known, _ := root.client(nil)
	nobody, _ := root.client(nil)
	people := f.table("people")
	people.set(table.CertAuth, "email:printer@example.org", "printer")
	ask := func(chain [][]byte) (Identity, error) {
		return s.Identify(t.Context(), VerifyRequest{Use: UseClient, Chain: chain})
	}
	if got, err := ask(known); err != nil || got.User != "printer" {
		t.Fatalf("%+v, %v", got, err)
	}
	people.fail(errors.New("away"))
	if got, err := ask(nobody); err == nil && got.User == "" {
		t.Errorf("denied while away: %+v", got)
	}
	people.fail(nil)
	people.remove(table.CertAuth, "email:printer@example.org")
	people.tell(table.CertAuth, "email:printer@example.org")
	if got, err := ask(known); err != nil || got.User != "" || got.Verdict.State != Verified {
		t.Errorf("after the row was deleted: %+v, %v", got, err)
	}
}

// Names that a certificate may hold and a key may not are left out, and their
// number is bounded.
func TestIdentities(t *testing.T) {
	root := newAuthority(t, "root", nil)
	_, leaf := root.client(func(c *x509.Certificate) {
		c.EmailAddresses = []string{"a\r\nb@example.org", "ok@example.org", strings.Repeat("x", table.MaxKey) + "@example.org"}
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example.org"}}
		c.Subject.CommonName = "a\nb"
	})
	got := identities(leaf)
	want := []string{"email:ok@example.org", "dns:printer.example.org"}
	if !slices.Equal(got[1:], want) || !strings.HasPrefix(got[0], "sha256:") || len(got[0]) != 71 {
		t.Errorf("identities %q; want %q after the key's", got, want)
	}
	_, leaf = root.client(func(c *x509.Certificate) {
		for range 1000 {
			c.DNSNames = append(c.DNSNames, "many.example.org")
		}
	})
	if got := identities(leaf); len(got) != maxIdentities {
		t.Errorf("%d identities of a certificate with 1,000 names", len(got))
	}
}

// The table of cert-auth is asked by check, and shown for what it is used for.
func TestCheckAsksCertAuth(t *testing.T) {
	f := newFixture(t)
	s := f.service(identifyConf)
	root := newAuthority(t, "root", nil)
	chain, key := root.server("ecdsa", nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	f.table("anchors").set(table.CA, "*", root.pem())
	if found := s.Check(t.Context()); len(found) != 0 {
		t.Fatalf("problems: %v", found)
	}
	if tables, err := s.Tables(t.Context()); err != nil || !slices.Equal(tables[2].Services, []string{"certauth"}) {
		t.Errorf("tables: %+v, %v", tables, err)
	}
	f = newFixture(t)
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	f.table("anchors").set(table.CA, "*", root.pem())
	f.table("people").fail(errDown)
	found := f.service(identifyConf).Check(t.Context())
	if len(found) != 1 || !strings.HasPrefix(found[0].String(), "test.conf:5:1: table people: certauth: ") {
		t.Errorf("problems: %v", found)
	}
}
