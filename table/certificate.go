package table

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"tabard/internal/sealing"
)

// KeyPair is one certificate of a cert answer, with its private key.
type KeyPair struct {
	Chain [][]byte          // DER, leaf first, issuers after it as far as the row has them
	Leaf  *x509.Certificate // parsed Chain[0]
	Key   []byte            // PEM block of the private key, of whatever kind; secret
}

// String keeps the key out of logs.
func (k KeyPair) String() string { return "certificate for " + k.Leaf.Subject.String() }

// GoString keeps the key out of %#v.
func (k KeyPair) GoString() string { return k.String() }

// ErrCert is wrapped by every error of ParseKeyPairs. Its text never quotes
// key material.
var ErrCert = errors.New("bad certificate")

// ErrMismatch is wrapped by an error of ParseKeyPairs about a private key that is
// none of a certificate in the answer.
var ErrMismatch = errors.New("does not match any certificate")

// ParseKeyPairs reads a cert answer: PEM of certificates and private keys in any
// order and in any number of columns, or base64 of such PEM (rows of Postfix'
// tls_server_sni_maps). Several keys (ECDSA beside RSA) give several pairs, in
// the order of the keys. Every key must belong to a certificate, except that an
// encrypted key, when it is the only one, is taken on trust. EC parameters and
// unknown blocks are skipped.
func ParseKeyPairs(row Row) ([]KeyPair, error) {
	var certs []*x509.Certificate
	var keys []*pem.Block
	for i, col := range row {
		blocks, err := pemBlocks(col)
		if err != nil {
			return nil, fmt.Errorf("%w: column %d: %w", ErrCert, i+1, err)
		}
		for _, b := range blocks {
			switch {
			case b.Type == "CERTIFICATE":
				c, err := x509.ParseCertificate(b.Bytes)
				if err != nil {
					return nil, fmt.Errorf("%w: certificate %d: %w", ErrCert, len(certs)+1, err)
				}
				certs = append(certs, c)
			case strings.HasSuffix(b.Type, "PRIVATE KEY"):
				keys = append(keys, b)
			}
		}
	}
	switch {
	case len(certs) == 0:
		return nil, fmt.Errorf("%w: no CERTIFICATE block", ErrCert)
	case len(keys) == 0:
		return nil, fmt.Errorf("%w: no PRIVATE KEY block", ErrCert)
	}
	return pairKeys(certs, keys)
}

func pairKeys(certs []*x509.Certificate, keys []*pem.Block) ([]KeyPair, error) {
	var pairs []KeyPair
	for i, k := range keys {
		leaf, err := leafFor(certs, k, len(keys) == 1)
		if err != nil {
			return nil, fmt.Errorf("%w: private key %d: %w", ErrCert, i+1, err)
		}
		pairs = append(pairs, KeyPair{Chain: chainFrom(leaf, certs), Leaf: leaf, Key: pem.EncodeToMemory(k)})
	}
	return pairs, nil
}

// leafFor finds the certificate of a key.
func leafFor(certs []*x509.Certificate, k *pem.Block, sole bool) (*x509.Certificate, error) {
	if sum := k.Headers[sealing.PublicHeader]; k.Type == sealing.BlockType && sum != "" {
		for _, c := range certs {
			if sum == KeyDigest(c) {
				return c, nil
			}
		}
		return nil, fmt.Errorf("is sealed, and %w", ErrMismatch)
	}
	if isEncrypted(k) {
		if sole {
			return likelyLeaf(certs), nil
		}
		return nil, errors.New("is encrypted, and there are several keys: which certificate it belongs to cannot be told")
	}
	key, err := ParsePrivateKey(k)
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if Belongs(key, c) {
			return c, nil
		}
	}
	return nil, ErrMismatch
}

// isEncrypted recognises sealed keys, PKCS#8 encryption, and the older header of
// RFC 1421.
func isEncrypted(k *pem.Block) bool {
	return k.Type == sealing.EncryptedType || k.Type == sealing.BlockType || strings.Contains(k.Headers["Proc-Type"], "ENCRYPTED")
}

// ParsePrivateKey reads a PKCS#8, PKCS#1 or SEC1 block that is not encrypted.
// The label is only a hint: whichever form the content has is taken.
func ParsePrivateKey(k *pem.Block) (crypto.Signer, error) {
	if isEncrypted(k) {
		return nil, errors.New("private key is encrypted")
	}
	if any8, err := x509.ParsePKCS8PrivateKey(k.Bytes); err == nil {
		switch key := any8.(type) {
		case *rsa.PrivateKey:
			return key, nil
		case *ecdsa.PrivateKey:
			return key, nil
		case ed25519.PrivateKey:
			return key, nil
		}
		return nil, fmt.Errorf("private key of a kind that TLS cannot use: %T", any8)
	}
	if key, err := x509.ParsePKCS1PrivateKey(k.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(k.Bytes); err == nil {
		return key, nil
	}
	return nil, errors.New("private key is not PKCS#8, PKCS#1 or SEC1")
}

// likelyLeaf returns the first certificate that issued none of the others.
func likelyLeaf(certs []*x509.Certificate) *x509.Certificate {
	for _, c := range certs {
		issuer := false
		for _, other := range certs {
			issuer = issuer || other != c && bytes.Equal(other.RawIssuer, c.RawSubject)
		}
		if !issuer {
			return c
		}
	}
	return certs[0]
}

// chainFrom orders issuers after leaf. Certificates that belong to no place in
// the chain are left out: a peer could do nothing with them.
func chainFrom(leaf *x509.Certificate, certs []*x509.Certificate) [][]byte {
	chain := [][]byte{leaf.Raw}
	used := map[*x509.Certificate]bool{leaf: true}
	for at := leaf; at != nil && !bytes.Equal(at.RawIssuer, at.RawSubject); {
		at = issuerOf(at, certs, used)
		if at != nil {
			used[at] = true
			chain = append(chain, at.Raw)
		}
	}
	return chain
}

// issuerOf finds the issuer by its name and key identifier. Signatures, which cost
// as much as the rest of the reading, are looked at only where that fits several.
func issuerOf(c *x509.Certificate, certs []*x509.Certificate, used map[*x509.Certificate]bool) *x509.Certificate {
	var fit []*x509.Certificate
	for _, o := range certs {
		otherKey := len(c.AuthorityKeyId) > 0 && len(o.SubjectKeyId) > 0 && !bytes.Equal(c.AuthorityKeyId, o.SubjectKeyId)
		if !used[o] && !otherKey && bytes.Equal(c.RawIssuer, o.RawSubject) {
			fit = append(fit, o)
		}
	}
	if len(fit) == 1 {
		return fit[0]
	}
	for _, o := range fit {
		if c.CheckSignatureFrom(o) == nil {
			return o
		}
	}
	return nil
}
