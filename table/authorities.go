package table

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// Authorities is a ca answer.
type Authorities struct {
	Anchors []*x509.Certificate    // trust anchors, at least one
	CRLs    []*x509.RevocationList // complete lists; whose they are, and their signatures, is not checked
}

// ParseCA reads a ca answer: a bundle of trust anchors as PEM, or base64 of
// PEM, in any number of columns, and revocation lists (X509 CRL) among them.
// Text between blocks is skipped, other blocks are an error.
func ParseCA(row Row) (Authorities, error) {
	var a Authorities
	for _, col := range row {
		blocks, err := pemBlocks(col)
		if err != nil {
			return Authorities{}, fmt.Errorf("ca: %w", err)
		}
		for _, b := range blocks {
			if err := a.add(b); err != nil {
				return Authorities{}, fmt.Errorf("ca: %w", err)
			}
		}
	}
	if len(a.Anchors) == 0 {
		return Authorities{}, errors.New("ca: no certificate in the answer")
	}
	return a, nil
}

func (a *Authorities) add(b *pem.Block) error {
	switch b.Type {
	case "CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE":
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d: %w", len(a.Anchors)+1, err)
		}
		a.Anchors = append(a.Anchors, c)
	case "X509 CRL":
		l, err := parseCRL(b.Bytes)
		if err != nil {
			return fmt.Errorf("CRL %d: %w", len(a.CRLs)+1, err)
		}
		a.CRLs = append(a.CRLs, l)
	default:
		return fmt.Errorf("PEM block is neither a certificate nor a CRL but %q", b.Type)
	}
	return nil
}

// parseCRL takes a list only if it says everything about its issuer's
// certificates until a day that it names. What a delta CRL, a part of a list or
// another issuer's entries mean is not known here, and half of it would let a
// revoked certificate pass (RFC 5280 section 5.2).
func parseCRL(der []byte) (*x509.RevocationList, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	for _, e := range l.Extensions {
		switch {
		case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 27}):
			return nil, errors.New("a delta CRL is not supported: store the complete one")
		case e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 28}):
			return nil, errors.New("covers only a part of its issuer's certificates (issuing distribution point), which is not supported")
		case e.Critical:
			return nil, fmt.Errorf("has the critical extension %s, which is not supported", e.Id)
		}
	}
	for _, entry := range l.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("entry %s has the critical extension %s, which is not supported", entry.SerialNumber, e.Id)
			}
		}
	}
	switch l.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.UnknownSignatureAlgorithm:
		return nil, fmt.Errorf("signature algorithm %s is too weak or unknown", l.SignatureAlgorithm)
	}
	if l.NextUpdate.IsZero() {
		return nil, errors.New("does not say when the next one is due (nextUpdate)")
	}
	return l, nil
}
