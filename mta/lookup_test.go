package mta

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tabard/lookup"
)

// memLookup is a lookup.Outbound in memory. Its verdicts are real.
type memLookup struct {
	mu        sync.Mutex
	route     lookup.Route
	routeErr  error
	byDomain  map[string]lookup.Route
	own       *tls.Certificate
	roots     *x509.CertPool
	verifyErr error
	verifier  lookup.Outbound // judges instead of roots, if there is one
	creds     map[string]lookup.Credentials
	dkim      dkimStore
	asked     int // how often credentials were asked for
	verified  int // how often a chain was to be verified
}

func newMemLookup() *memLookup {
	return &memLookup{byDomain: make(map[string]lookup.Route), creds: make(map[string]lookup.Credentials), roots: x509.NewCertPool()}
}

func (l *memLookup) set(r lookup.Route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.route = r
}

func (l *memLookup) Route(_ context.Context, r lookup.RouteRequest) (lookup.Route, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if route, ok := l.byDomain[r.Domain]; ok {
		return route, nil
	}
	return l.route, l.routeErr
}

// Certificate gives out own, to whoever asks for it by the right names.
func (l *memLookup) Certificate(_ context.Context, r lookup.CertificateRequest) (lookup.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own == nil {
		return lookup.Certificate{}, errors.New("no certificate")
	}
	if r.Action == "" || r.ServerName == "" || len(r.Schemes) == 0 {
		return lookup.Certificate{}, fmt.Errorf("asked for %+v", r)
	}
	return lookup.Certificate{Chain: l.own.Certificate, Handle: "c.own"}, nil
}

func (l *memLookup) Sign(_ context.Context, r lookup.SignRequest) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key := l.dkim.signers[r.Handle]; key != nil {
		l.dkim.signs++
		return key.Sign(rand.Reader, r.Digest, r.Hash)
	}
	key, ok := l.own.PrivateKey.(crypto.Signer)
	if !ok || r.Handle != "c.own" {
		return nil, errors.New("no such key")
	}
	return key.Sign(rand.Reader, r.Digest, r.Hash)
}

func (l *memLookup) Verify(ctx context.Context, r lookup.VerifyRequest) (lookup.Verdict, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.verified++
	if l.verifyErr != nil {
		return lookup.Verdict{}, l.verifyErr
	}
	if l.verifier != nil {
		return l.verifier.Verify(ctx, r)
	}
	var certs []*x509.Certificate
	for _, der := range r.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return lookup.Verdict{State: lookup.Failed, Reason: "malformed"}, nil
		}
		certs = append(certs, cert)
	}
	opts := x509.VerifyOptions{
		Roots: l.roots, Intermediates: x509.NewCertPool(), CurrentTime: time.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, cert := range certs[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := certs[0].Verify(opts); err != nil {
		return lookup.Verdict{State: lookup.Failed, Reason: reason(err)}, nil
	}
	names := r.Names
	if len(names) == 0 {
		names = []string{r.Name}
	}
	for _, name := range names {
		below := func(san string) bool { return name[0] == '.' && strings.HasSuffix(san, name) }
		if certs[0].VerifyHostname(name) == nil || slices.ContainsFunc(certs[0].DNSNames, below) {
			return lookup.Verdict{State: lookup.Verified, Identity: name}, nil
		}
	}
	return lookup.Verdict{State: lookup.Failed, Reason: "wrong-name"}, nil
}

func reason(err error) string {
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &authority):
		return "unknown-authority"
	case strings.Contains(err.Error(), "expired"):
		return "expired"
	}
	return "malformed"
}

func (l *memLookup) RelayCredentials(_ context.Context, r lookup.CredentialsRequest) (lookup.Credentials, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	c, ok := l.creds[r.Label]
	if !ok {
		return lookup.Credentials{}, errors.New("no such label")
	}
	return c, nil
}
