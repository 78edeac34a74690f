package lookup

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tabard/table"
)

// chainCase is what a peer presents, what the ca row has, and the verdict.
type chainCase struct {
	name   string
	ca     []string // columns of the row
	chain  [][]byte
	use    Use    // zero: UseServer
	peer   string // empty: mx.example
	reason string // empty: verified
}

// forge makes a certificate anew with other elements of its TBSCertificate (RFC
// 5280 section 4.1; 0 is the version), another algorithm and signature.
func forge(t testing.TB, der []byte, elements map[int][]byte, algorithm pkix.AlgorithmIdentifier, sign func(tbs []byte) []byte) []byte {
	t.Helper()
	var outer struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	mustASN1(t, der, &outer)
	alg := marshal(t, algorithm)
	var tbs []byte
	for i, rest := 0, outer.TBS.Bytes; len(rest) > 0; i++ {
		var e asn1.RawValue
		rest = mustASN1(t, rest, &e)
		switch changed, ok := elements[i]; {
		case ok:
			tbs = append(tbs, changed...)
		case i == 2:
			tbs = append(tbs, alg...)
		default:
			tbs = append(tbs, e.FullBytes...)
		}
	}
	outer.Algorithm = algorithm
	outer.TBS = asn1.RawValue{FullBytes: marshal(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: tbs})}
	sig := sign(outer.TBS.FullBytes)
	outer.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	return marshal(t, outer)
}

func mustASN1(t testing.TB, der []byte, into any) []byte {
	t.Helper()
	rest, err := asn1.Unmarshal(der, into)
	if err != nil {
		t.Fatal(err)
	}
	return rest
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// signer signs with an authority's key.
func (a *authority) signer(hash crypto.Hash) func([]byte) []byte {
	return func(tbs []byte) []byte {
		h := hash.New()
		h.Write(tbs)
		sig, err := a.key.Sign(rand.Reader, h.Sum(nil), hash)
		if err != nil {
			a.t.Fatal(err)
		}
		return sig
	}
}

func ecdsaSHA256() pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
}

func rsaWith(last int) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, last}, Parameters: asn1.NullRawValue}
}

// withKey issues a certificate for a public key that need not be one of ours.
func (a *authority) withKey(spki any) []byte {
	a.t.Helper()
	return forge(a.t, ders(a.leafOf(nil, "mx.example"))[0], map[int][]byte{6: marshal(a.t, spki)}, ecdsaSHA256(), a.signer(crypto.SHA256))
}

type spki struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

func ecKey(t testing.TB, parameters any) spki {
	return spki{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, Parameters: asn1.RawValue{FullBytes: marshal(t, parameters)}},
		asn1.BitString{Bytes: bytes.Repeat([]byte{4}, 65), BitLength: 65 * 8}}
}

// hugeRSA is a public key of 16,384 bits; nobody has the private one.
func hugeRSA(t testing.TB) *rsa.PublicKey {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 16383))
	if err != nil {
		t.Fatal(err)
	}
	n.SetBit(n, 16383, 1).SetBit(n, 0, 1)
	return &rsa.PublicKey{N: n, E: 1<<31 - 1}
}

// hugeIssuer certifies such a key as an authority, and returns it with a leaf
// that it would have signed.
func (a *authority) hugeIssuer(name string) (issuer, leaf []byte) {
	a.t.Helper()
	pub := hugeRSA(a.t)
	tmpl := caTemplate(name)
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = big.NewInt(7), time.Now().Add(-day), time.Now().Add(day)
	issuer, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	named := &authority{t: a.t, key: makeKey(a.t, "ecdsa")}
	named.cert = named.sign(caTemplate(name), named.key)
	leaf = forge(a.t, ders(named.leafOf(nil, "mx.example"))[0], nil, rsaWith(11), func([]byte) []byte { return bytes.Repeat([]byte{1}, 2048) })
	return issuer, leaf
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
}

// under returns an authority below a, with its own kind of key.
func (a *authority) under(kind, name string, change func(*x509.Certificate)) *authority {
	a.t.Helper()
	b := &authority{t: a.t, key: makeKey(a.t, kind)}
	tmpl := caTemplate(name)
	if change != nil {
		change(tmpl)
	}
	b.cert = a.sign(tmpl, b.key)
	return b
}

func root(t testing.TB, kind, name string, change func(*x509.Certificate)) *authority {
	t.Helper()
	a := &authority{t: t, key: makeKey(t, kind)}
	tmpl := caTemplate(name)
	if change != nil {
		change(tmpl)
	}
	a.cert = a.sign(tmpl, a.key)
	return a
}

func manyNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("host%d.example", i)
	}
	names[0] = "mx.example"
	return names
}

func keyCases(t *testing.T, ca *authority) []chainCase {
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := ca.under("rsa1024", "small", nil)
	hugeCA, underHuge := ca.hugeIssuer("huge")
	good := ders(ca.leafOf(nil, "mx.example"))[0]
	of := func(kind string) [][]byte {
		chain, _ := ca.server(kind, nil, "mx.example")
		return ders(chain)
	}
	pkixKey := func(pub any) []byte {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return ca.withKey(asn1.RawValue{FullBytes: der})
	}
	ed448 := spki{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 113}}, asn1.BitString{Bytes: make([]byte, 57), BitLength: 57 * 8}}
	brainpool := ca.withKey(ecKey(t, asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}))
	return []chainCase{
		{name: "P-521", chain: of("p521")},
		{name: "Ed25519", chain: of("ed25519")},
		{name: "RSA", chain: of("rsa")},
		{name: "16k RSA", chain: [][]byte{pkixKey(hugeRSA(t))}, reason: ReasonUnsupportedKey},
		{name: "16k RSA of the issuer", chain: [][]byte{underHuge, hugeCA}, reason: ReasonUnsupportedKey},
		{name: "16k RSA beside the path", chain: [][]byte{good, hugeCA}},
		{name: "RSA too short", chain: of("rsa1024"), reason: ReasonWeakKey},
		{name: "RSA too short, of the issuer", chain: ders(small.leafOf(nil, "mx.example"), small.pem()), reason: ReasonWeakKey},
		{name: "brainpool curve", chain: [][]byte{brainpool}, reason: ReasonUnsupportedKey},
		{name: "brainpool curve beside the path", chain: [][]byte{good, brainpool}},
		{name: "curve spelled out", chain: [][]byte{ca.withKey(ecKey(t, struct{ Version int }{1}))}, reason: ReasonUnsupportedKey},
		{name: "point not on its curve", chain: [][]byte{ca.withKey(ecKey(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}))}, reason: ReasonMalformed},
		{name: "Ed448", chain: [][]byte{ca.withKey(ed448)}, reason: ReasonUnsupportedKey},
		{name: "X25519", chain: [][]byte{pkixKey(x.PublicKey())}, reason: ReasonUnsupportedKey},
	}
}

func signatureCases(t *testing.T) []chainCase {
	ca := root(t, "rsa", "RSA root", nil)
	sha1CA := ca.under("rsa", "SHA-1 CA", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	oldRoot := root(t, "rsa", "old root", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	sha1 := func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }
	good := ders(ca.leafOf(nil, "mx.example"))[0]
	cases := []chainCase{
		{name: "MD5", chain: [][]byte{forge(t, good, nil, rsaWith(4), ca.signer(crypto.MD5))}, reason: ReasonWeakSignature},
		{name: "SHA-1", chain: ders(ca.leafOf(sha1, "mx.example")), reason: ReasonWeakSignature},
		{name: "SHA-1 on the issuer", chain: ders(sha1CA.leafOf(nil, "mx.example"), sha1CA.pem()), reason: ReasonWeakSignature},
		{name: "SHA-1 on the anchor", ca: []string{oldRoot.pem()}, chain: ders(oldRoot.leafOf(nil, "mx.example"))},
		{name: "signature of somebody else", chain: [][]byte{forge(t, good, nil, rsaWith(11), oldRoot.signer(crypto.SHA256))}, reason: ReasonAuthority},
		{name: "no signature", chain: [][]byte{forge(t, good, nil, rsaWith(11), func([]byte) []byte { return nil })}, reason: ReasonAuthority},
	}
	for i := range cases {
		if cases[i].ca == nil {
			cases[i].ca = []string{ca.pem()}
		}
	}
	return cases
}

func nameCases(ca *authority) []chainCase {
	leaf := func(change func(*x509.Certificate), names ...string) [][]byte {
		return ders(ca.leafOf(change, names...))
	}
	none := func(c *x509.Certificate) { c.DNSNames = nil }
	mail := func(addr string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames, c.EmailAddresses = nil, []string{addr} }
	}
	return []chainCase{
		{name: "common name only", chain: leaf(none, "mx.example"), reason: ReasonNoName},
		{name: "email only", chain: leaf(mail("postmaster@mx.example"), "mx.example"), reason: ReasonNoName},
		{name: "address in a DNS name", chain: leaf(func(c *x509.Certificate) { c.DNSNames = []string{"192.0.2.1"} }, "x"), peer: "192.0.2.1", reason: ReasonWrongName},
		{name: "NUL", chain: leaf(nil, "mx.example\x00.evil.example"), reason: ReasonMalformed},
		{name: "NUL in another name", chain: leaf(nil, "mx.example", "a\x00.example"), reason: ReasonMalformed},
		{name: "client with NUL", use: UseClient, chain: leaf(mail("joe@example.org\x00.evil.example"), "joe"), reason: ReasonMalformed},
		{name: "client with a line break", use: UseClient, chain: leaf(nil, "a\r\nb.example"), reason: ReasonMalformed},
		{name: "bare wildcard", chain: leaf(nil, "*"), peer: "localhost", reason: ReasonWrongName},
		{name: "part of a label", chain: leaf(nil, "m*.example"), reason: ReasonWrongName},
		{name: "wildcard in the middle", chain: leaf(nil, "a.*.example"), peer: "a.b.example", reason: ReasonWrongName},
		{name: "two wildcards", chain: leaf(nil, "*.*.example"), peer: "a.b.example", reason: ReasonWrongName},
		{name: "wildcard and A-label", chain: leaf(nil, "*.example"), peer: "bücher.example"},
		{name: "wildcard asked for", chain: leaf(nil, "*.example"), peer: "*.example", reason: ReasonWrongName},
		{name: "suffix", chain: leaf(nil, "mx.example"), peer: "evilmx.example", reason: ReasonWrongName},
		{name: "1,000 names", chain: leaf(nil, manyNames(1000)...)},
		{name: "1,001 names", chain: leaf(nil, manyNames(1001)...), reason: ReasonTooManyNames},
		{name: "client with 100 names", use: UseClient, chain: leaf(nil, manyNames(100)...)},
		{name: "client with 1,000 names", use: UseClient, chain: leaf(nil, manyNames(1000)...), reason: ReasonTooManyNames},
	}
}

func limitCases(t *testing.T, ca *authority) []chainCase {
	leaf := func(by *authority, change func(*x509.Certificate), names ...string) [][]byte {
		return ders(by.leafOf(change, names...), by.pem())
	}
	usages := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	_, subnet, _ := net.ParseCIDR("192.0.2.0/24")
	only := ca.under("ecdsa", "only", func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains, c.PermittedEmailAddresses, c.PermittedIPRanges = true, []string{"only.example"}, []string{"only.example"}, []*net.IPNet{subnet}
	})
	not := ca.under("ecdsa", "not", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"not.example"} })
	anchor := root(t, "ecdsa", "narrow anchor", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"only.example"} })
	clients := ca.under("ecdsa", "clients", usages(x509.ExtKeyUsageClientAuth))
	noSign := ca.under("ecdsa", "signs nothing", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	last := ca.under("ecdsa", "last", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	beyond := last.under("ecdsa", "beyond", nil)
	strange := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	}
	odd := ca.under("ecdsa", "odd", strange)
	keyUsage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	mail := func(c *x509.Certificate) { c.DNSNames, c.EmailAddresses = nil, []string{"joe@other.example"} }
	return []chainCase{
		{name: "permitted", chain: leaf(only, nil, "mx.only.example", "192.0.2.9"), peer: "mx.only.example"},
		{name: "not permitted", chain: leaf(only, nil, "mx.example"), reason: ReasonNameConstraint},
		{name: "another of its names is not permitted", chain: leaf(only, nil, "mx.only.example", "mx.example"), peer: "mx.only.example", reason: ReasonNameConstraint},
		{name: "address not permitted", chain: leaf(only, nil, "mx.only.example", "198.51.100.1"), peer: "mx.only.example", reason: ReasonNameConstraint},
		{name: "client's address not permitted", use: UseClient, chain: leaf(only, mail, "joe"), reason: ReasonNameConstraint},
		{name: "wildcard above what is permitted", chain: leaf(only, nil, "*.example"), peer: "only.example", reason: ReasonNameConstraint},
		{name: "excluded", chain: leaf(not, nil, "mx.not.example"), peer: "mx.not.example", reason: ReasonNameConstraint},
		{name: "not excluded", chain: leaf(not, nil, "mx.example")},
		{name: "anchor does not permit", ca: []string{anchor.pem()}, chain: leaf(anchor, nil, "mx.example"), reason: ReasonNameConstraint},
		{name: "key agreement only", chain: leaf(ca, keyUsage(x509.KeyUsageKeyAgreement), "mx.example"), reason: ReasonUsage},
		{name: "client, encryption only", use: UseClient, chain: leaf(ca, keyUsage(x509.KeyUsageKeyEncipherment), "mx.example"), reason: ReasonUsage},
		{name: "no key usage", chain: leaf(ca, keyUsage(0), "mx.example")},
		{name: "any usage", chain: leaf(ca, usages(x509.ExtKeyUsageAny), "mx.example")},
		{name: "code signing", chain: leaf(ca, usages(x509.ExtKeyUsageCodeSigning), "mx.example"), reason: ReasonUsage},
		{name: "issuer for clients only", chain: leaf(clients, usages(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth), "mx.example"), reason: ReasonUsage},
		{name: "issuer for clients, a client", use: UseClient, chain: leaf(clients, nil, "mx.example")},
		{name: "issuer may not sign certificates", chain: leaf(noSign, nil, "mx.example"), reason: ReasonAuthority},
		{name: "path as long as allowed", chain: leaf(last, nil, "mx.example")},
		{name: "path longer than allowed", chain: append(leaf(beyond, nil, "mx.example"), last.cert.Raw), reason: ReasonAuthority},
		{name: "unknown critical extension", chain: leaf(ca, strange, "mx.example"), reason: ReasonMalformed},
		{name: "unknown critical extension of the issuer", chain: leaf(odd, nil, "mx.example"), reason: ReasonMalformed},
	}
}

func pathCases(t *testing.T, ca *authority) []chainCase {
	good := ders(ca.leafOf(nil, "mx.example"))[0]
	ends := func(d time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(d) }
	}
	begins := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }
	past := ca.under("ecdsa", "past", ends(-time.Hour))
	future := ca.under("ecdsa", "future", begins)
	gone := root(t, "ecdsa", "gone", ends(-time.Hour))
	stranger := newAuthority(t, "stranger", nil)
	self := root(t, "ecdsa", "mx.example", func(c *x509.Certificate) {
		c.DNSNames = []string{"mx.example"}
		c.KeyUsage |= x509.KeyUsageDigitalSignature
	})
	// Two authorities of one name: a path exists through one of them only, and
	// the other's certificate may come first.
	twin, other := ca.under("ecdsa", "twin", nil), stranger.under("ecdsa", "twin", nil)
	strange := &authority{t: t, key: past.key, cert: stranger.sign(caTemplate("past"), past.key)}
	crossed := &authority{t: t, key: gone.key, cert: ca.sign(caTemplate("gone"), gone.key)}
	deep := ca
	var deepChain [][]byte
	for i := range maxPresented - 1 {
		deep = deep.under("ecdsa", fmt.Sprint("depth ", i), nil)
		deepChain = append(deepChain, deep.cert.Raw)
	}
	longest := append(ders(deep.leafOf(nil, "mx.example")), deepChain...)
	big := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, maxCertDER)}}
	}
	return []chainCase{
		{name: "expired", chain: ders(ca.leafOf(ends(-time.Second), "mx.example")), reason: ReasonExpired},
		{name: "not yet valid", chain: ders(ca.leafOf(begins, "mx.example")), reason: ReasonNotYetValid},
		{name: "client, expired", use: UseClient, chain: ders(ca.leafOf(ends(-time.Second), "mx.example")), reason: ReasonExpired},
		{name: "issuer expired", chain: ders(past.leafOf(nil, "mx.example"), stranger.pem(), past.pem(), stranger.pem()), reason: ReasonExpired},
		{name: "issuer expired, cross-signed by a stranger", chain: ders(past.leafOf(nil, "mx.example"), past.pem(), strange.pem()), reason: ReasonExpired},
		{name: "cross-signed by a stranger, issuer expired", chain: ders(past.leafOf(nil, "mx.example"), strange.pem(), past.pem()), reason: ReasonExpired},
		{name: "issuer not yet valid", chain: ders(future.leafOf(nil, "mx.example"), future.pem(), stranger.pem()), reason: ReasonNotYetValid},
		{name: "anchor expired", ca: []string{gone.pem()}, chain: ders(gone.leafOf(nil, "mx.example")), reason: ReasonExpired},
		{name: "anchor expired, cross-signed by another", ca: []string{gone.pem(), ca.pem()}, chain: ders(gone.leafOf(nil, "mx.example"), gone.pem(), crossed.pem())},
		{name: "unknown authority", chain: ders(stranger.leafOf(nil, "mx.example"), stranger.pem(), ca.pem()), reason: ReasonAuthority},
		{name: "client, unknown authority", use: UseClient, chain: ders(stranger.leafOf(nil, "mx.example")), reason: ReasonAuthority},
		{name: "self-signed", chain: ders(self.pem()), reason: ReasonSelfSigned},
		{name: "client, self-signed", use: UseClient, chain: ders(self.pem()), reason: ReasonSelfSigned},
		{name: "self-signed, but trusted", ca: []string{ca.pem(), self.pem()}, chain: ders(self.pem())},
		{name: "self-signed, trusted, for another name", ca: []string{self.pem()}, chain: ders(self.pem()), peer: "other.example", reason: ReasonWrongName},
		{name: "two issuers of one name", chain: ders(twin.leafOf(nil, "mx.example"), other.pem(), stranger.pem(), twin.pem())},
		{name: "other one of one name", chain: ders(other.leafOf(nil, "mx.example"), twin.pem(), other.pem()), reason: ReasonAuthority},
		{name: "leaf in the middle", chain: ders(twin.pem(), twin.leafOf(nil, "mx.example")), reason: ReasonUsage},
		{name: "longest chain, upside down", chain: append(longest[:1:1], reversed(longest[1:])...)},
		{name: "a hole in the chain", chain: slices.Concat(longest[:5], longest[6:]), reason: ReasonAuthority},
		{name: "many certificates", chain: slices.Repeat([][]byte{good}, maxPresented+1), reason: ReasonChainTooLong},
		{name: "large certificate", chain: ders(ca.leafOf(big, "mx.example")), reason: ReasonChainTooLong},
		{name: "the same many times", chain: slices.Repeat([][]byte{good}, maxPresented)},
	}
}

func reversed(s [][]byte) [][]byte {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// run asks for the verdict on each case, as smtpd or mta would.
func runChainCases(t *testing.T, ca *authority, cases []chainCase) {
	f := newFixture(t)
	s := f.service(verifyConf)
	for _, tt := range cases {
		if tt.use == 0 {
			tt.use = UseServer
		}
		if tt.peer == "" && tt.use == UseServer {
			tt.peer = "mx.example"
		}
		if tt.ca == nil {
			tt.ca = []string{ca.pem()}
		}
		f.table("anchors").set(table.CA, "*", tt.ca...)
		got, err := s.Verify(t.Context(), VerifyRequest{Action: actionFor(tt.use), Use: tt.use, Name: tt.peer, Chain: tt.chain})
		want := Verified
		if tt.reason != "" {
			want = Failed
		}
		if err != nil || got.State != want || got.Reason != tt.reason || (got.Identity != "") != (want == Verified) {
			t.Errorf("%s: %+v, %v; want %s %s", tt.name, got, err, want, tt.reason)
		}
	}
}

func badCases(t *testing.T, ca *authority) []chainCase {
	return slices.Concat(keyCases(t, ca), signatureCases(t), nameCases(ca), limitCases(t, ca), pathCases(t, ca), crlCases(t))
}

// Everything that a stranger may present, with its verdict.
func TestVerifyBadInput(t *testing.T) {
	ca := newAuthority(t, "root", nil)
	cases := badCases(t, ca)
	runChainCases(t, ca, cases)
	for _, reason := range Reasons() {
		if !slices.ContainsFunc(cases, func(c chainCase) bool { return c.reason == reason }) {
			t.Errorf("no case fails with %q", reason)
		}
	}
}

// A chain that is made to be dear costs little.
func TestVerifyCost(t *testing.T) {
	ca := newAuthority(t, "root", nil)
	// Each of these could have issued each other and the leaf, by its name.
	name := "everybody"
	web := [][]byte{}
	for range maxPresented - 1 {
		a := &authority{t: t, key: makeKey(t, "p521")}
		tmpl := caTemplate(name)
		tmpl.DNSNames = []string{fmt.Sprint(len(web))}
		parent := &authority{t: t, key: makeKey(t, "p521"), cert: &x509.Certificate{Subject: pkix.Name{CommonName: name}}}
		web = append(web, parent.sign(tmpl, a.key).Raw)
	}
	lost := root(t, "p521", name, nil)
	issuer, leaf := ca.hugeIssuer("huge")
	huge := append([][]byte{leaf}, slices.Repeat([][]byte{issuer}, maxPresented-1)...)
	begin := time.Now()
	runChainCases(t, ca, []chainCase{
		{name: "web", chain: append(ders(lost.leafOf(nil, "mx.example")), web...), reason: ReasonAuthority},
		{name: "16k RSA", chain: huge, reason: ReasonUnsupportedKey},
	})
	if took := time.Since(begin); took > 5*time.Second { // about 0.1 s
		t.Errorf("took %v", took)
	}
}

// The manual lists the vocabulary.
func TestReasonsInManual(t *testing.T) {
	text, err := os.ReadFile("../docs/relay.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	_, section, _ := strings.Cut(string(text), "\n## Verdicts on certificates\n")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "## ") {
			break
		}
		if word, ok := strings.CutPrefix(line, "| `"); ok {
			word, _, _ = strings.Cut(word, "`")
			listed = append(listed, word)
		}
	}
	if !slices.Equal(listed, Reasons()) {
		t.Errorf("docs/relay.md lists %q,\nwant %q", listed, Reasons())
	}
}

func crlPEM(l []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: l}))
}
