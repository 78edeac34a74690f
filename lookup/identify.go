package lookup

import (
	"context"
	"crypto/x509"
	"errors"

	"tabard/internal/address"
	"tabard/table"
)

// maxIdentities bounds how many names of one certificate are asked for.
const maxIdentities = 64

// Identify implements Inbound. The chain is judged as Verify does; on a listener
// with cert-auth, a verified one is the user whom the table has for the first of
// its identities that is there (see identities). An error means that the trust
// anchors or the table could not be asked: whether the client is anybody is not
// known.
func (s *Service) Identify(ctx context.Context, r VerifyRequest) (Identity, error) {
	verdict, leaf, err := s.verify(ctx, r)
	if err != nil || verdict.State != Verified {
		return Identity{Verdict: verdict}, err
	}
	l, err := s.listener(r.Listener)
	if err != nil || l.CertAuth == "" {
		return Identity{Verdict: verdict}, err
	}
	t, err := s.tables.get(l.CertAuth)
	if err != nil {
		return Identity{}, err
	}
	return sure(ctx, func(id Identity) bool { return id.User == "" }, func(ctx context.Context) (Identity, error) {
		id, err := certUser(ctx, t, leaf)
		id.Verdict = verdict
		return id, err
	})
}

// certUser asks for the identities of a certificate, in their order.
func certUser(ctx context.Context, t *table.Table, leaf *x509.Certificate) (Identity, error) {
	for _, key := range identities(leaf) {
		user, err := t.CertUser(ctx, key)
		if err == nil {
			return Identity{User: user, By: key}, nil
		}
		if !errors.Is(err, table.ErrNotFound) {
			return Identity{}, err
		}
	}
	return Identity{}, nil
}

// identities are the keys that a client certificate is looked up by, in their
// order: its public key, its mail addresses, its host names, its subject. What
// could break a line protocol is no identity.
func identities(leaf *x509.Certificate) []string {
	keys := []string{"sha256:" + table.KeyDigest(leaf)}
	add := func(kind, text string) {
		key := kind + ":" + text
		if text != "" && len(keys) < maxIdentities && address.OneLine(key, table.MaxKey) == key {
			keys = append(keys, key)
		}
	}
	for _, mail := range leaf.EmailAddresses {
		add("email", mail)
	}
	for _, name := range leaf.DNSNames {
		add("dns", name)
	}
	add("dn", leaf.Subject.String())
	return keys
}
