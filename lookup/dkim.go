package lookup

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"tabard/table"
)

// maxAbove bounds how many domains above the author's are asked for keys.
const maxAbove = 4

// DKIM implements Outbound. The keys are those of the author's domain, or else of
// the next domain above that has some: its signature speaks for the domains below
// as well (RFC 7489 section 3.1.1). No key means that the mail is not signed; a
// row that cannot be used is an error, so that the mail waits instead of going out
// without the signature that was promised; and so is "no row" that is only remembered
// from before the table went down.
func (s *Service) DKIM(ctx context.Context, r DKIMRequest) ([]DKIMKey, error) {
	a, err := s.action(r.Action)
	if err != nil {
		return nil, err
	}
	domain := normalName(r.Domain)
	if a.dkim == nil || domain == "" {
		return nil, nil
	}
	return sure(ctx, func(keys []DKIMKey) bool { return len(keys) == 0 },
		func(ctx context.Context) ([]DKIMKey, error) { return s.keysAbove(ctx, a, domain) })
}

// keysAbove returns the keys of a domain, or of the next above it.
func (s *Service) keysAbove(ctx context.Context, a *action, domain string) ([]DKIMKey, error) {
	for range 1 + maxAbove {
		row, err := a.dkim.Lookup(ctx, table.DKIM, domain)
		if err == nil {
			return s.dkimKeys(domain, a.dkim.Name(), row)
		}
		if !errors.Is(err, table.ErrNotFound) {
			return nil, err
		}
		_, above, _ := strings.Cut(domain, ".")
		if !strings.Contains(above, ".") {
			break
		}
		domain = above
	}
	return nil, nil
}

func (s *Service) dkimKeys(domain, name string, row table.Row) ([]DKIMKey, error) {
	p := s.custody.openDKIM(row)
	if p.err != nil {
		return nil, fmt.Errorf("table %s: dkim %.300q: %w", name, domain, p.err)
	}
	keys := make([]DKIMKey, 0, len(p.pairs))
	for i, pair := range p.pairs {
		public, err := x509.MarshalPKIXPublicKey(pair.signer.Public())
		if err != nil {
			return nil, fmt.Errorf("table %s: dkim %.300q: %w", name, domain, err)
		}
		keys = append(keys, DKIMKey{Domain: domain, Selector: p.names[i], Handle: p.handle(i, UseDKIM), Public: public})
	}
	return keys, nil
}

// parseDKIM reads a dkim row with its files, and opens its keys.
func (v *vault) parseDKIM(row table.Row) (pairs []*keyPair, selectors []string, err error) {
	keys, err := table.ParseDKIM(row)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range keys {
		signer, err := v.openDKIM(k)
		if err != nil {
			return nil, nil, fmt.Errorf("selector %q: %w", k.Selector, err)
		}
		pair := &keyPair{signer: signer}
		runtime.AddCleanup(pair, wipe, signer)
		pairs, selectors = append(pairs, pair), append(selectors, k.Selector)
	}
	return pairs, selectors, nil
}

func (v *vault) openDKIM(k table.DKIMKey) (crypto.Signer, error) {
	switch {
	case k.File != "":
		text, err := table.ReadPEMFile(k.File)
		if err != nil {
			return nil, err
		}
		return v.openers().ReadDKIM(text)
	case k.Block != nil:
		return v.openers().OpenDKIM(k.Block)
	}
	return k.Key, nil
}

// DKIMSigner makes a signer of a key that stays with holder. Each signature waits
// for ctx, and for ten seconds at most.
func DKIMSigner(ctx context.Context, holder KeyHolder, k DKIMKey) (crypto.Signer, error) {
	public, err := x509.ParsePKIXPublicKey(k.Public)
	if err != nil {
		return nil, fmt.Errorf("dkim key %s of %s: %w", k.Selector, k.Domain, err)
	}
	return &remoteKey{ctx: ctx, holder: holder, handle: k.Handle, public: public}, nil
}
