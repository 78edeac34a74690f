package lookup

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"tabard/internal/address"
)

// CertificateInfo is a certificate that was asked for, as the server knows it.
type CertificateInfo struct {
	Source   string    `json:"source"` // "table mail" or "pki"
	Name     string    `json:"name"`   // that it is looked up by
	Key      string    `json:"key,omitempty"`
	Issuer   string    `json:"issuer,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
	InUse    bool      `json:"in_use"`          // to clients that understand its kind of key
	Fault    string    `json:"fault,omitempty"` // why it, or another of the name, is not in use
	Serving  bool      `json:"serving"`         // of a fault: another is served meanwhile
}

// Certificates implements Admin: what was served last, and what was found unfit.
// No source is asked for it.
func (s *Service) Certificates(context.Context) ([]CertificateInfo, error) {
	var infos []CertificateInfo
	now := s.clock()
	for _, good := range s.certs.good.all() {
		for _, c := range allOf(good.row) {
			infos = append(infos, c.info(good.key, now))
		}
	}
	for _, f := range s.CertificateFaults() {
		infos = append(infos, CertificateInfo{Source: f.Source, Name: f.Name, Fault: address.OneLine(f.Cause, maxFault), Serving: f.Serving})
	}
	slices.SortStableFunc(infos, func(a, b CertificateInfo) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Name, b.Name))
	})
	return infos[:min(len(infos), maxCertInfos)], nil
}

// maxCertInfos bounds one answer.
const maxCertInfos = 5000

func allOf(p *parsedRow) []candidate {
	var all []candidate
	for i := range p.pairs {
		all = append(all, candidate{p, i})
	}
	return all
}

func (c candidate) info(key certKey, now time.Time) CertificateInfo {
	leaf := c.pair().leaf
	info := CertificateInfo{Source: key.source, Name: key.name, Key: KeyName(leaf), Issuer: address.OneLine(leaf.Issuer.CommonName, maxFault), NotAfter: leaf.NotAfter}
	switch err := c.pair().valid(now); {
	case err != nil:
		info.Fault = err.Error()
	case displaced(c, c.row.usable(now)):
		info.Fault = "a later one is in use"
	default:
		info.InUse = true
	}
	return info
}

// displaced reports whether a usable certificate with the same kind of key became
// valid later.
func displaced(c candidate, usable []candidate) bool {
	return slices.ContainsFunc(usable, func(other candidate) bool {
		return keyRank(other.pair()) == keyRank(c.pair()) && other.pair().leaf.NotBefore.After(c.pair().leaf.NotBefore)
	})
}

// KeyName is how people call the kind of key in a certificate.
func KeyName(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return "ecdsa " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("rsa %d", k.N.BitLen())
	}
	return strings.ToLower(c.PublicKeyAlgorithm.String())
}
