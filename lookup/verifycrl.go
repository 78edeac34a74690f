package lookup

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"

	"tabard/internal/address"
	"tabard/table"
)

// trust is what a ca answer says: whom to believe, and what is not true any
// more.
type trust struct {
	pool  *x509.CertPool
	certs []*x509.Certificate // those in pool; none for the system's
	crls  []*crl
}

func newTrust(a table.Authorities) *trust {
	t := &trust{pool: x509.NewCertPool(), certs: a.Anchors}
	for _, c := range a.Anchors {
		t.pool.AddCert(c)
	}
	for _, l := range a.CRLs {
		t.crls = append(t.crls, newCRL(l))
	}
	return t
}

// crl is one revocation list, with its entries as a set: a list may have a
// hundred thousand.
type crl struct {
	list    *x509.RevocationList // without the entries
	revoked map[string]struct{}  // serial numbers
	// signers says of certificates that were tried whether they signed the list,
	// so that the whole of it is not hashed for every handshake.
	signers *lru[[sha256.Size]byte, bool]
}

// maxSigners bounds the answers that a list keeps.
const maxSigners = 16

func newCRL(l *x509.RevocationList) *crl {
	c := &crl{revoked: make(map[string]struct{}, len(l.RevokedCertificateEntries)), signers: newLRU[[sha256.Size]byte, bool](maxSigners)}
	for _, e := range l.RevokedCertificateEntries {
		c.revoked[serialKey(e.SerialNumber)] = struct{}{}
	}
	// What is needed of the list without its entries, which are large.
	c.list = &x509.RevocationList{
		RawTBSRevocationList: l.RawTBSRevocationList, Signature: l.Signature, SignatureAlgorithm: l.SignatureAlgorithm,
		RawIssuer: l.RawIssuer, Issuer: l.Issuer, AuthorityKeyId: l.AuthorityKeyId,
		ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Number: l.Number,
	}
	return c
}

// serialKey keeps the sign: RFC 5280 forbids negative numbers, and some issue
// them.
func serialKey(n *big.Int) string { return n.Text(62) }

func (c *crl) has(cert *x509.Certificate) bool {
	_, ok := c.revoked[serialKey(cert.SerialNumber)]
	return ok
}

// signedBy reports whether issuer signed the list and may do so.
func (c *crl) signedBy(issuer *x509.Certificate) bool {
	sum := sha256.Sum256(issuer.Raw)
	if ok, known := c.signers.get(sum); known {
		return ok
	}
	return c.signers.getOrPut(sum, c.list.CheckSignatureFrom(issuer) == nil)
}

// claims reports whether the list says that it is of issuer's key, or of no
// other: an authority that changed keys under one name has a list for each.
func (c *crl) claims(issuer *x509.Certificate) bool {
	return len(c.list.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0 || bytes.Equal(c.list.AuthorityKeyId, issuer.SubjectKeyId)
}

// newer orders lists of one issuer by their number (RFC 5280 section 5.2.3),
// else by their time.
func newer(a, b *crl) int {
	if a.list.Number != nil && b.list.Number != nil {
		if by := a.list.Number.Cmp(b.list.Number); by != 0 {
			return by
		}
	}
	return a.list.ThisUpdate.Compare(b.list.ThisUpdate)
}

// overdue says of each list that has run out, and has no successor here, whose
// certificates fail by it.
func (t *trust) overdue(now time.Time) []string {
	var out []string
	for _, l := range t.crls {
		replaced := slices.ContainsFunc(t.crls, func(o *crl) bool {
			return bytes.Equal(o.list.RawIssuer, l.list.RawIssuer) && bytes.Equal(o.list.AuthorityKeyId, l.list.AuthorityKeyId) && newer(o, l) > 0
		})
		if due := l.list.NextUpdate; now.After(due) && !replaced {
			out = append(out, fmt.Sprintf("the CRL of %s was to be replaced by %s: its certificates do not verify",
				address.OneLine(l.list.Issuer.String(), maxIdentityLength), due.UTC().Format(time.RFC3339)))
		}
	}
	return out
}

// revocation returns "" if one of the chains has no certificate that is revoked,
// or of an issuer whose list is of no use: who stores a list wants to know. An
// issuer without a list is not asked for one.
func (t *trust) revocation(chains [][]*x509.Certificate, now time.Time) string {
	if len(t.crls) == 0 {
		return ""
	}
	var reasons []string
	for _, chain := range chains {
		reason := t.chainRevocation(chain, now)
		if reason == "" {
			return ""
		}
		reasons = append(reasons, reason)
	}
	return graver(reasons)
}

func (t *trust) chainRevocation(chain []*x509.Certificate, now time.Time) string {
	var reasons []string
	for i, c := range chain {
		// The anchor is trusted because it is in the table. A peer's certificate
		// that is in there itself is a chain of one.
		if i > 0 && i == len(chain)-1 {
			break
		}
		reasons = append(reasons, t.certRevocation(c, slices.Concat(chain[i+1:], t.certs), now))
	}
	return graver(reasons)
}

// certRevocation looks one certificate up in the lists of its issuer. Where an
// authority has several keys under one name, each has lists of its own: a newer
// one of another key replaces nothing.
func (t *trust) certRevocation(c *x509.Certificate, issuers []*x509.Certificate, now time.Time) string {
	var lists []*crl
	for _, l := range t.crls {
		if bytes.Equal(l.list.RawIssuer, c.RawIssuer) {
			lists = append(lists, l)
		}
	}
	if len(lists) == 0 {
		return ""
	}
	issuers = slices.DeleteFunc(slices.Clone(issuers), func(i *x509.Certificate) bool { return !bytes.Equal(i.RawSubject, c.RawIssuer) })
	reason := ""
	for _, issuer := range issuers {
		latest := latestOf(lists, issuer)
		switch {
		case latest == nil:
		case latest.has(c):
			return ReasonRevoked
		case now.After(latest.list.NextUpdate) && c.CheckSignatureFrom(issuer) == nil:
			reason = ReasonCRLExpired
		}
	}
	for _, l := range lists {
		if slices.ContainsFunc(issuers, l.claims) && !slices.ContainsFunc(issuers, l.signedBy) {
			return ReasonCRLInvalid
		}
	}
	return reason
}

// latestOf returns the newest of the lists that issuer signed, or nil.
func latestOf(lists []*crl, issuer *x509.Certificate) *crl {
	var latest *crl
	for _, l := range lists {
		if l.signedBy(issuer) && (latest == nil || newer(l, latest) > 0) {
			latest = l
		}
	}
	return latest
}

// graver returns the first of the reasons in the vocabulary's order, or "".
func graver(reasons []string) string {
	rank := func(reason string) int {
		if reason == "" {
			return len(Reasons())
		}
		return slices.Index(Reasons(), reason)
	}
	if len(reasons) == 0 {
		return ""
	}
	return slices.MinFunc(reasons, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
}
