package smtpd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"

	"tabard/internal/address"
	"tabard/lookup"
)

// certificate answers one handshake: the chain that lookup serves for the name
// now, and a key that signs there.
func (s *Server) certificate(h *tls.ClientHelloInfo, ln *Listener) (*tls.Certificate, error) {
	ctx := h.Context()
	name := strings.ToLower(strings.TrimSuffix(h.ServerName, "."))
	key := certKey{ln.Index, name}
	req := lookup.CertificateRequest{Listener: ln.Index, ServerName: name, Schemes: lookup.OfferedSchemes(h)}
	req.Have = s.certs.last(key)
	reply, err := s.lookup.Certificate(ctx, req)
	if err != nil {
		return nil, &noCertificate{address.OneLine(name, 255), err}
	}
	known, err := s.certs.chain(key, reply)
	if errors.Is(err, errForgotten) {
		// Another handshake pushed the chain out of the cache meanwhile.
		req.Have = [32]byte{}
		if reply, err = s.lookup.Certificate(ctx, req); err == nil {
			known, err = s.certs.chain(key, reply)
		}
	}
	if err != nil {
		return nil, &noCertificate{address.OneLine(name, 255), err}
	}
	return lookup.ParsedCertificate(ctx, s.lookup, reply, known.der, known.leaf), nil
}

// noCertificate says for which name there was none, and why.
type noCertificate struct {
	name string
	err  error
}

func (e *noCertificate) Error() string {
	return fmt.Sprintf("no certificate for %q: %v", e.name, e.err)
}
func (e *noCertificate) Unwrap() error { return e.err }

// maxCerts bounds the cache of parsed chains, and of names: what clients call us
// is theirs to invent.
const maxCerts = 1024

// certCache keeps parsed chains by fingerprint, so that a handshake moves and
// parses only what is new. The zero value is ready.
type certCache struct {
	mu     sync.Mutex
	names  map[certKey][32]byte
	chains map[[32]byte]*parsedChain
}

type certKey struct {
	listener int
	name     string
}

type parsedChain struct {
	der  [][]byte
	leaf *x509.Certificate
}

var errForgotten = errors.New("chain not in the cache")

// last returns the fingerprint of the chain that a name had last, if it is kept.
func (c *certCache) last(k certKey) [32]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[k]
}

// chain returns the chain of an answer, from the cache when it was left out.
func (c *certCache) chain(k certKey, r lookup.Certificate) (*parsedChain, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.chains[r.Fingerprint]; known != nil {
		c.name(k, r.Fingerprint)
		return known, nil
	}
	if len(r.Chain) == 0 {
		return nil, errForgotten
	}
	leaf, err := x509.ParseCertificate(r.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("certificate from lookup: %w", err)
	}
	if c.chains == nil || len(c.chains) >= maxCerts {
		c.chains, c.names = map[[32]byte]*parsedChain{}, map[certKey][32]byte{}
	}
	known := &parsedChain{der: r.Chain, leaf: leaf}
	c.chains[r.Fingerprint] = known
	c.name(k, r.Fingerprint)
	return known, nil
}

// name remembers what a name had. A full map begins anew: it costs the next
// handshakes the chain's bytes once.
func (c *certCache) name(k certKey, fingerprint [32]byte) {
	if len(c.names) >= maxCerts {
		c.names = map[certKey][32]byte{}
	}
	c.names[k] = fingerprint
}
