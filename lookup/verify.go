package lookup

import (
	"context"
	"crypto/x509"
	"net/netip"
	"strings"
	"time"

	"tabard/internal/address"
)

// maxIdentityLength bounds the identity in a verdict, in bytes.
const maxIdentityLength = 512

// Verify implements Inbound and Outbound: one verifier for both directions. The
// chain is judged against the trust anchors of the listener's or action's ca
// (see authorities), with the presented intermediates in any order: validity,
// key usage, name constraints, revocation where the ca has a CRL, and for
// servers the name, by subjectAltName only (RFC 6125 section 6.4.4). No
// certificate at all is unchecked. An error means that the trust anchors could
// not be asked.
func (s *Service) Verify(ctx context.Context, r VerifyRequest) (Verdict, error) {
	v, _, err := s.verify(ctx, r)
	return v, err
}

// verify is Verify, and returns the certificate if it is verified: what it says
// of its holder is true then.
func (s *Service) verify(ctx context.Context, r VerifyRequest) (Verdict, *x509.Certificate, error) {
	if len(r.Chain) == 0 {
		return Verdict{}, nil, nil
	}
	p, fault := parsePresented(r.Chain, r.Use)
	if fault != "" {
		return failed(fault), nil, nil
	}
	name, ok := verifyName(r)
	if !ok {
		return failed(ReasonWrongName), nil, nil
	}
	t, err := s.authorities(ctx, r, name)
	if err != nil {
		return Verdict{}, nil, err
	}
	if fault := p.judge(t, r.Use, name, s.clock()); fault != "" {
		return failed(fault), nil, nil
	}
	v := Verdict{State: Verified, Identity: strings.Trim(name, "[]")}
	if r.Use == UseClient {
		v.Identity = address.OneLine(p.leaf.Subject.String(), maxIdentityLength)
	}
	return v, p.leaf, nil
}

func failed(reason string) Verdict { return Verdict{State: Failed, Reason: reason} }

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

// judge returns the reason why a chain does not verify at a time, or "". name
// is empty for clients.
func (p *presented) judge(t *trust, use Use, name string, now time.Time) string {
	if reason := outOfTime(p.leaf, now); reason != "" {
		return reason
	}
	usage := x509.ExtKeyUsageServerAuth
	if use == UseClient {
		usage = x509.ExtKeyUsageClientAuth
	}
	chains, err := p.leaf.Verify(x509.VerifyOptions{
		Roots: t.pool, Intermediates: p.intermediates(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return p.pathFault(err, t, now)
	}
	// Whichever way keys are agreed on, the peer's own key signs (RFC 8446
	// section 4.4.2.2). x509 leaves that to its caller.
	if u := p.leaf.KeyUsage; u != 0 && u&x509.KeyUsageDigitalSignature == 0 {
		return ReasonUsage
	}
	if name != "" {
		if reason := wrongName(p.leaf, name); reason != "" {
			return reason
		}
	}
	return t.revocation(chains, now)
}

func outOfTime(c *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(c.NotBefore):
		return ReasonNotYetValid
	case now.After(c.NotAfter):
		return ReasonExpired
	}
	return ""
}

// wrongName says why a server's certificate is not for a name.
func wrongName(leaf *x509.Certificate, name string) string {
	switch {
	case leaf.VerifyHostname(name) == nil:
		return ""
	case len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0:
		return ReasonNoName
	}
	return ReasonWrongName
}
