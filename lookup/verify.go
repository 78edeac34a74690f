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
	names, ok := verifyNames(r, name)
	if !ok {
		return failed(ReasonWrongName), nil, nil
	}
	if fault := p.judge(t, r.Use, names, s.clock()); fault != "" {
		return failed(fault), nil, nil
	}
	v := Verdict{State: Verified, Identity: strings.Trim(matched(p.leaf, names), "[]")}
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

// judge returns the reason why a chain does not verify at a time, or "". There
// are no names for clients.
func (p *presented) judge(t *trust, use Use, names []string, now time.Time) string {
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
	if reason := wrongName(p.leaf, names); reason != "" {
		return reason
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

// maxNames bounds the names that a certificate may be for.
const maxNames = 100

// verifyNames returns the names of which a server's certificate must be for one,
// in the form of verifyName or with a dot in front; none for a client.
func verifyNames(r VerifyRequest, name string) ([]string, bool) {
	if r.Use == UseClient {
		return nil, true
	}
	if len(r.Names) == 0 {
		return []string{name}, true
	}
	var names []string
	for _, n := range r.Names[:min(len(r.Names), maxNames)] {
		bare, below := strings.CutPrefix(n, ".")
		normal, ok := verifyName(VerifyRequest{Use: r.Use, Name: bare})
		if !ok || below && strings.HasPrefix(normal, "[") {
			continue
		}
		if below {
			normal = "." + normal
		}
		names = append(names, normal)
	}
	return names, len(names) > 0
}

// matched returns the first name that a certificate is for, or "".
func matched(leaf *x509.Certificate, names []string) string {
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			if leaf.VerifyHostname(name) == nil {
				return name
			}
			continue
		}
		for _, san := range leaf.DNSNames {
			if san = strings.ToLower(strings.TrimSuffix(san, ".")); len(san) > len(name) && strings.HasSuffix(san, name) {
				return san
			}
		}
	}
	return ""
}

// wrongName says why a server's certificate is for none of the names.
func wrongName(leaf *x509.Certificate, names []string) string {
	switch {
	case len(names) == 0 || matched(leaf, names) != "":
		return ""
	case len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0:
		return ReasonNoName
	}
	return ReasonWrongName
}
