package lookup

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/table"
)

// crl issues a revocation list of some certificates; number orders lists.
func (a *authority) crl(number int64, due time.Duration, revoked ...*x509.Certificate) string {
	a.t.Helper()
	now := time.Now()
	tmpl := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-2 * day), NextUpdate: now.Add(due)}
	for _, c := range revoked {
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.Add(-day)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return crlPEM(der)
}

func (a *authority) parsedLeaf(names ...string) *x509.Certificate {
	a.t.Helper()
	c, err := x509.ParseCertificate(ders(a.leafOf(nil, names...))[0])
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func crlCases(t *testing.T) []chainCase {
	ca := root(t, "ecdsa", "CRL root", nil)
	inter := ca.under("ecdsa", "CRL intermediate", nil)
	mute := ca.under("ecdsa", "may not sign CRLs", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	// An impostor has the root's name and key identifier; the successor only its
	// name.
	impostor := root(t, "ecdsa", "CRL root", func(c *x509.Certificate) { c.SubjectKeyId = ca.cert.SubjectKeyId })
	successor := root(t, "ecdsa", "CRL root", nil)
	second := root(t, "ecdsa", "second root", nil)
	crossed := &authority{t: t, key: inter.key, cert: second.sign(caTemplate("CRL intermediate"), inter.key)}

	leaf, deep, muted := ca.parsedLeaf("mx.example"), inter.parsedLeaf("mx.example"), mute.parsedLeaf("mx.example")
	mayMute := &authority{t: t, key: mute.key, cert: mute.cert}
	mayMute.cert = ca.sign(caTemplate("may not sign CRLs"), mute.key)
	chain := func(certs ...*x509.Certificate) (out [][]byte) {
		for _, c := range certs {
			out = append(out, c.Raw)
		}
		return out
	}
	row := func(columns ...string) []string { return append([]string{ca.pem()}, columns...) }
	direct, long := chain(leaf), chain(deep, inter.cert)
	return []chainCase{
		{name: "in no list", ca: row(ca.crl(1, day)), chain: direct},
		{name: "others are revoked", ca: row(ca.crl(1, day, deep, inter.cert)), chain: direct},
		{name: "revoked", ca: row(ca.crl(1, day, deep, leaf)), chain: direct, reason: ReasonRevoked},
		{name: "revoked client", use: UseClient, ca: row(ca.crl(1, day, leaf)), chain: direct, reason: ReasonRevoked},
		{name: "list before the anchor, in one column", ca: []string{ca.crl(1, day, leaf) + ca.pem()}, chain: direct, reason: ReasonRevoked},
		{name: "issuer revoked", ca: row(ca.crl(1, day, inter.cert)), chain: long, reason: ReasonRevoked},
		{name: "revoked by the intermediate", ca: row(inter.crl(1, day, deep)), chain: long, reason: ReasonRevoked},
		{name: "the same number, of another issuer", ca: row(ca.crl(1, day, deep)), chain: long},
		{name: "list expired", ca: row(ca.crl(1, -time.Minute)), chain: direct, reason: ReasonCRLExpired},
		{name: "in an expired list", ca: row(ca.crl(1, -time.Minute, leaf)), chain: direct, reason: ReasonRevoked},
		{name: "the root's list expired", ca: row(ca.crl(1, -time.Minute), inter.crl(1, day)), chain: long, reason: ReasonCRLExpired},
		{name: "expired list of an issuer that has no part in it", ca: row(inter.crl(1, -time.Minute)), chain: direct},
		{name: "newer list beside an expired one", ca: row(ca.crl(2, day), ca.crl(1, -time.Minute)), chain: direct},
		{name: "revoked in the newer list", ca: row(ca.crl(1, day), ca.crl(2, day, leaf)), chain: direct, reason: ReasonRevoked},
		{name: "taken back in the newer list", ca: row(ca.crl(2, day), ca.crl(1, day, leaf)), chain: direct},
		{name: "list of an impostor", ca: row(impostor.crl(1, day)), chain: direct, reason: ReasonCRLInvalid},
		{name: "an impostor's list beside the true one", ca: row(impostor.crl(9, day), ca.crl(1, day, leaf)), chain: direct, reason: ReasonRevoked},
		{name: "newer list of the other key", ca: row(successor.pem(), successor.crl(9, day), ca.crl(1, day, leaf)), chain: direct, reason: ReasonRevoked},
		{name: "expired list of the other key", ca: row(successor.pem(), successor.crl(9, -time.Minute), ca.crl(1, day)), chain: direct},
		{name: "impostor beside the other key", ca: row(successor.pem(), impostor.crl(1, day)), chain: direct, reason: ReasonCRLInvalid},
		{name: "list of the other key, which nobody knows", ca: row(successor.crl(1, -time.Minute)), chain: direct},
		{name: "issuer may not sign lists", ca: row(mayMute.crl(1, day)), chain: chain(muted, mute.cert), reason: ReasonCRLInvalid},
		{name: "revoked, but listed as anchor itself", ca: row(string(certPEM(leaf)), ca.crl(1, day, leaf)), chain: direct, reason: ReasonRevoked},
		{name: "revoked on one of two paths", ca: row(second.pem(), ca.crl(1, day, inter.cert)), chain: chain(deep, inter.cert, crossed.cert)},
		{name: "revoked on both paths", ca: row(second.pem(), ca.crl(1, day, inter.cert), second.crl(1, day, crossed.cert)), chain: chain(deep, inter.cert, crossed.cert), reason: ReasonRevoked},
		{name: "revoked, for another name", ca: row(ca.crl(1, day, leaf)), chain: direct, peer: "other.example", reason: ReasonWrongName},
	}
}

// `check` warns of a list that makes certificates fail, in a row and in a file.
func TestCheckOverdueCRL(t *testing.T) {
	ca := root(t, "ecdsa", "CRL root", nil)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, []byte(ca.pem()+ca.crl(1, -time.Minute)), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	s := f.service("table anchors sqlite:/mem/anchors\nca file cert \"" + path + "\"\n" + `
action "out" relay ca <anchors>
match from any for any action "out"
`)
	for _, tt := range []struct {
		name string
		row  []string
		want int
	}{
		{"none", []string{ca.pem()}, 1},
		{"current", []string{ca.pem(), ca.crl(1, day)}, 1},
		{"overdue", []string{ca.pem(), ca.crl(1, -time.Minute)}, 2},
		{"overdue, and replaced", []string{ca.pem(), ca.crl(1, -time.Minute), ca.crl(2, day)}, 1},
	} {
		f.table("anchors").set(table.CA, "*", tt.row...)
		got := s.Check(t.Context())
		if len(got) != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		for _, p := range got {
			if !p.Warning || !strings.Contains(p.String(), "the CRL of CN=CRL root was to be replaced by ") {
				t.Errorf("%s: %s", tt.name, p)
			}
		}
	}
}
