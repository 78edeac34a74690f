package lookup

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"time"

	"tabard/internal/address"
)

// Bounds on a presented chain.
const (
	maxPresented = 16       // certificates
	maxCertDER   = 64 << 10 // bytes of each
)

// The reasons of a failed verdict.
const (
	reasonExpired     = "expired"
	reasonNotYet      = "not-yet-valid"
	reasonAuthority   = "unknown-authority"
	reasonName        = "wrong-name"
	reasonUsage       = "wrong-usage"
	reasonMalformed   = "malformed"
	maxIdentityLength = 512
)

// Verify implements Inbound and Outbound: one verifier for both directions. The
// chain is judged against the trust anchors of the listener's or action's ca
// (see authorities), with the presented intermediates in any order: validity,
// extended key usage, and for servers the name, by subjectAltName only (RFC
// 6125 section 6.4.4). No certificate at all is unchecked. An error means that
// the trust anchors could not be asked.
func (s *Service) Verify(ctx context.Context, r VerifyRequest) (Verdict, error) {
	if len(r.Chain) == 0 {
		return Verdict{}, nil
	}
	chain, ok := parseChain(r.Chain)
	if !ok {
		return failed(reasonMalformed), nil
	}
	name, ok := verifyName(r)
	if !ok {
		return failed(reasonName), nil
	}
	roots, err := s.authorities(ctx, r, name)
	if err != nil {
		return Verdict{}, err
	}
	return judge(chain, roots, r.Use, name, s.clock()), nil
}

func failed(reason string) Verdict { return Verdict{State: Failed, Reason: reason} }

func parseChain(ders [][]byte) ([]*x509.Certificate, bool) {
	if len(ders) > maxPresented {
		return nil, false
	}
	chain := make([]*x509.Certificate, 0, len(ders))
	for _, der := range ders {
		if len(der) > maxCertDER {
			return nil, false
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, false
		}
		chain = append(chain, c)
	}
	return chain, true
}

// verifyName returns the name that a server's certificate must be for, in
// A-labels, or an address in the form that x509 wants. A server that is to be
// verified without a name is not.
func verifyName(r VerifyRequest) (string, bool) {
	if r.Use == UseClient {
		return "", true
	}
	name := strings.TrimSuffix(r.Name, ".")
	if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "[" + ip.Unmap().WithZone("").String() + "]", true
	}
	name = normalName(name)
	return name, name != ""
}

// judge verifies a chain at a time. name is empty for clients.
func judge(chain []*x509.Certificate, roots *x509.CertPool, use Use, name string, now time.Time) Verdict {
	leaf := chain[0]
	switch {
	case now.Before(leaf.NotBefore):
		return failed(reasonNotYet)
	case now.After(leaf.NotAfter):
		return failed(reasonExpired)
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	usage := x509.ExtKeyUsageServerAuth
	if use == UseClient {
		usage = x509.ExtKeyUsageClientAuth
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return failed(reasonOf(err, now))
	}
	if name == "" {
		return Verdict{State: Verified, Identity: address.OneLine(leaf.Subject.String(), maxIdentityLength)}
	}
	if leaf.VerifyHostname(name) != nil {
		return failed(reasonName)
	}
	return Verdict{State: Verified, Identity: strings.Trim(name, "[]")}
}

// reasonOf gives x509's error a word of the vocabulary.
func reasonOf(err error, now time.Time) string {
	var invalid x509.CertificateInvalidError
	var critical x509.UnhandledCriticalExtension
	switch {
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			if invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
				return reasonNotYet
			}
			return reasonExpired
		case x509.IncompatibleUsage:
			return reasonUsage
		case x509.CANotAuthorizedForThisName, x509.NameMismatch:
			return reasonName
		}
		return reasonAuthority
	case errors.As(err, &critical):
		return reasonMalformed
	}
	return reasonAuthority
}
