package table_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"tabard/table"
)

// crlIssuer is an authority and what its lists are signed with.
type crlIssuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCRLIssuer(t testing.TB) *crlIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &crlIssuer{cert, key}
}

func (i *crlIssuer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw}))
}

// list makes a CRL with one entry.
func (i *crlIssuer) list(t testing.TB, change func(*x509.RevocationList)) string {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: time.Now()}}}
	if change != nil {
		change(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, i.cert, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return crlBlock(der)
}

func crlBlock(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// bare makes a CRL of which x509 would not let us leave something out.
func (i *crlIssuer) bare(t testing.TB, algorithm asn1.ObjectIdentifier, due ...time.Time) string {
	t.Helper()
	alg := pkix.AlgorithmIdentifier{Algorithm: algorithm}
	parts := []any{1, alg, asn1.RawValue{FullBytes: i.cert.RawSubject}, time.Now().UTC()}
	for _, d := range due {
		parts = append(parts, d.UTC())
	}
	body := marshalAll(t, parts...)
	seq := marshalAll(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: body})
	all := append(append(seq, marshalAll(t, alg)...), marshalAll(t, asn1.BitString{Bytes: []byte{1}, BitLength: 8})...)
	return crlBlock(marshalAll(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: all}))
}

func marshalAll(t testing.TB, values ...any) []byte {
	t.Helper()
	var out []byte
	for _, v := range values {
		der, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, der...)
	}
	return out
}

func TestParseCAWithCRLs(t *testing.T) {
	ca := newCRLIssuer(t)
	crl := ca.list(t, nil)
	for _, row := range []table.Row{
		{ca.pem() + crl}, {crl, ca.pem()}, {crl + "comment\n" + ca.pem()}, {base64.StdEncoding.EncodeToString([]byte(ca.pem() + crl))},
	} {
		a, err := table.ParseCA(row)
		if err != nil || len(a.Anchors) != 1 || len(a.CRLs) != 1 || a.CRLs[0].RevokedCertificateEntries[0].SerialNumber.Int64() != 7 {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if a, err := table.ParseCA(table.Row{ca.pem()}); err != nil || len(a.CRLs) != 0 {
		t.Errorf("without: %+v, %v", a, err)
	}
}

// A list that is understood in part only is refused whole.
func TestParseCABadCRL(t *testing.T) {
	ca := newCRLIssuer(t)
	sha256, sha1 := asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	extension := func(critical bool, id ...int) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: critical, Value: []byte{2, 1, 1}}}
		}
	}
	entry := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{5, 0}}}
	}
	for name, tt := range map[string]struct{ text, want string }{
		"delta":               {ca.list(t, extension(true, 2, 5, 29, 27)), "CRL 2: a delta CRL is not supported"},
		"delta, not critical": {ca.list(t, extension(false, 2, 5, 29, 27)), "CRL 2: a delta CRL is not supported"},
		"partial":             {ca.list(t, extension(true, 2, 5, 29, 28)), "issuing distribution point"},
		"critical":            {ca.list(t, extension(true, 1, 2, 3)), "critical extension 1.2.3"},
		"indirect":            {ca.list(t, entry), "entry 7 has the critical extension 2.5.29.29"},
		"junk":                {crlBlock([]byte("junk")), "CRL 2: "},
		"no due date":         {ca.bare(t, sha256), "nextUpdate"},
		"SHA-1":               {ca.bare(t, sha1, time.Now().Add(time.Hour)), "too weak"},
		"unknown signature":   {ca.bare(t, asn1.ObjectIdentifier{1, 2, 3}, time.Now().Add(time.Hour)), "unknown"},
	} {
		_, err := table.ParseCA(table.Row{ca.pem() + ca.list(t, nil), tt.text})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := table.ParseCA(table.Row{ca.list(t, extension(false, 1, 2, 3)), ca.pem()}); err != nil {
		t.Errorf("unknown extension that is not critical: %v", err)
	}
	for name, text := range map[string]string{
		"a list without an authority": ca.list(t, nil), "too many blocks": strings.Repeat(ca.pem(), 1001), "too much": ca.pem() + strings.Repeat(" ", 4<<20),
	} {
		if _, err := table.ParseCA(table.Row{text}); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func FuzzParseCA(f *testing.F) {
	ca := newCRLIssuer(f)
	f.Add(ca.pem() + ca.list(f, nil))
	f.Add(ca.list(f, nil))
	f.Add(base64.StdEncoding.EncodeToString([]byte(ca.pem())))
	f.Fuzz(func(t *testing.T, text string) {
		a, err := table.ParseCA(table.Row{text})
		if (err == nil) != (len(a.Anchors) > 0) {
			t.Fatalf("%d anchors, %v", len(a.Anchors), err)
		}
		for _, l := range a.CRLs {
			if l.NextUpdate.IsZero() {
				t.Fatal("a list without an end")
			}
		}
	})
}
