package lookup

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"
	"time"
)

// Bounds on what a peer presents. A stranger chooses it, so each bounds what one
// question costs.
const (
	maxPresented   = 16       // certificates
	maxCertDER     = 64 << 10 // bytes of each
	maxServerNames = 1000     // subjectAltNames; more than public authorities put into one certificate
	maxClientNames = 100      // subjectAltNames; each may become a question to a table
)

// presented is what a peer sent, parsed.
type presented struct {
	leaf        *x509.Certificate
	others      []*x509.Certificate // in any order, and perhaps of no use
	unsupported bool                // others were left out: their keys are of unknown kinds
}

// parsePresented reads a chain, or returns the reason why it is not looked at
// any further.
func parsePresented(ders [][]byte, use Use) (*presented, string) {
	if len(ders) > maxPresented || slices.ContainsFunc(ders, func(der []byte) bool { return len(der) > maxCertDER }) {
		return nil, ReasonChainTooLong
	}
	p := &presented{}
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		switch {
		case err == nil && i == 0:
			p.leaf = c
		case err == nil:
			p.others = append(p.others, c)
		case !unknownCurve(der):
			return nil, ReasonMalformed
		case i == 0:
			return nil, ReasonUnsupportedKey
		default:
			p.unsupported = true
		}
	}
	return p, leafFault(p.leaf, use)
}

// leafFault says what is wrong with a peer's certificate by itself.
func leafFault(leaf *x509.Certificate, use Use) string {
	bound := maxServerNames
	if use == UseClient {
		bound = maxClientNames
	}
	switch {
	case len(leaf.UnhandledCriticalExtensions) > 0:
		return ReasonMalformed
	case len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses)+len(leaf.URIs) > bound:
		return ReasonTooManyNames
	case slices.ContainsFunc(leaf.DNSNames, hasControl), slices.ContainsFunc(leaf.EmailAddresses, hasControl):
		// A name with a NUL is one name to who signed it and another to who
		// stops reading there.
		return ReasonMalformed
	}
	return keyFault(leaf)
}

func hasControl(name string) bool {
	return slices.ContainsFunc([]byte(name), func(b byte) bool { return b < ' ' || b == 0x7f })
}

// keyFault says what is wrong with a certificate's public key.
func keyFault(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		switch bits := key.N.BitLen(); {
		case bits > maxRSA:
			return ReasonUnsupportedKey
		case bits < minRSA:
			return ReasonWeakKey
		}
		return ""
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return ""
	}
	return ReasonUnsupportedKey
}

// outline is the part of a certificate that tells its kind of key (RFC 5280
// section 4.1).
type outline struct {
	TBS struct {
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Validity  asn1.RawValue
		Subject   asn1.RawValue
		Key       struct {
			Algorithm pkix.AlgorithmIdentifier
			Bits      asn1.BitString
		}
		Rest asn1.RawValue `asn1:"optional"`
	}
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// unknownCurve reports whether a certificate that x509 refuses has an elliptic
// curve key: of the curves that TLS names, x509 knows all that we do.
func unknownCurve(der []byte) bool {
	var o outline
	rest, err := asn1.Unmarshal(der, &o)
	if err != nil || len(rest) > 0 || !o.TBS.Key.Algorithm.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}) {
		return false
	}
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(o.TBS.Key.Algorithm.Parameters.FullBytes, &curve); err != nil {
		return true // spelled out, not named
	}
	known := []asn1.ObjectIdentifier{{1, 3, 132, 0, 33}, {1, 2, 840, 10045, 3, 1, 7}, {1, 3, 132, 0, 34}, {1, 3, 132, 0, 35}}
	return !slices.ContainsFunc(known, curve.Equal)
}

// intermediates returns those of the others that a path may go through. The
// rest is no fault as long as there is a path without it.
func (p *presented) intermediates() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range p.others {
		if keyFault(c) == "" {
			pool.AddCert(c)
		}
	}
	return pool
}

// pathFault gives a reason for x509's error. x509 itself names whichever fault
// it met last; here the order of what was presented does not matter.
func (p *presented) pathFault(err error, t *trust, now time.Time) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.IncompatibleUsage:
			return ReasonUsage
		case x509.CANotAuthorizedForThisName, x509.UnconstrainedName, x509.TooManyConstraints:
			return ReasonNameConstraint
		}
	}
	found := map[string]bool{ReasonSelfSigned: selfSigned(p.leaf), ReasonUnsupportedKey: p.unsupported}
	for i, c := range p.reachable(t) {
		found[outOfTime(c, now)] = true
		if i > 0 && slices.Contains(t.certs, c) {
			continue // what else an anchor may be is its administrator's choice
		}
		found[keyFault(c)] = true
		found[ReasonWeakSignature] = found[ReasonWeakSignature] || weakSignature(c)
		found[ReasonMalformed] = found[ReasonMalformed] || len(c.UnhandledCriticalExtensions) > 0
	}
	// An anchor of the system, which reachable does not know.
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		found[outOfTime(invalid.Cert, now)] = true
	}
	for _, reason := range Reasons() {
		if found[reason] {
			return reason
		}
	}
	return ReasonAuthority
}

// reachable returns the certificates on any path upwards from the leaf, which
// comes first, by the names in them: enough for a reason, and never for trust.
func (p *presented) reachable(t *trust) []*x509.Certificate {
	path := []*x509.Certificate{p.leaf}
	for i := 0; i < len(path); i++ {
		for _, issuer := range slices.Concat(p.others, t.certs) {
			if bytes.Equal(path[i].RawIssuer, issuer.RawSubject) && !slices.Contains(path, issuer) {
				path = append(path, issuer)
			}
		}
	}
	return path
}

// selfSigned reports whether a certificate vouches for itself.
func selfSigned(c *x509.Certificate) bool {
	if !bytes.Equal(c.RawIssuer, c.RawSubject) {
		return false
	}
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	var weak x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &weak)
}

// weakSignature reports whether a signature proves nothing any more. That of a
// self-signed certificate need not prove anything.
func weakSignature(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		return !bytes.Equal(c.RawIssuer, c.RawSubject)
	}
	return false
}
