package lookup

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// signTimeout bounds the wait for one signature where the handshake gives none.
const signTimeout = 10 * time.Second

// KeyHolder makes the signatures of a certificate: an Inbound or an Outbound.
type KeyHolder interface {
	Sign(ctx context.Context, r SignRequest) ([]byte, error)
}

// TLSCertificate makes a certificate that crypto/tls can use, whose key stays
// with holder. c must have its Chain. Each signature waits for ctx, and for ten
// seconds at most.
func TLSCertificate(ctx context.Context, holder KeyHolder, c Certificate) (*tls.Certificate, error) {
	if len(c.Chain) == 0 {
		return nil, errors.New("certificate without a chain")
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		return nil, fmt.Errorf("certificate from lookup: %w", err)
	}
	return ParsedCertificate(ctx, holder, c, c.Chain, leaf), nil
}

// ParsedCertificate is TLSCertificate for a caller that keeps chains with their
// parsed leaves: chain and leaf stand in for those of c.
func ParsedCertificate(ctx context.Context, holder KeyHolder, c Certificate, chain [][]byte, leaf *x509.Certificate) *tls.Certificate {
	cert := &tls.Certificate{
		Certificate: chain, Leaf: leaf,
		PrivateKey: &remoteKey{ctx: ctx, holder: holder, handle: c.Handle, public: leaf.PublicKey},
	}
	for _, scheme := range c.Schemes {
		cert.SupportedSignatureAlgorithms = append(cert.SupportedSignatureAlgorithms, tls.SignatureScheme(scheme))
	}
	return cert
}

// remoteKey is a crypto.Signer whose key is in another process.
type remoteKey struct {
	ctx    context.Context
	holder KeyHolder
	handle string
	public crypto.PublicKey
}

// Public implements crypto.Signer.
func (k *remoteKey) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. The randomness is the key holder's own.
func (k *remoteKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(k.ctx, signTimeout)
	defer cancel()
	r := SignRequest{Handle: k.handle, Digest: digest, Hash: opts.HashFunc()}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != r.Hash.Size() {
			return nil, errors.New("remote key: RSA-PSS salt must be as long as the hash")
		}
		r.PSS = true
	}
	return k.holder.Sign(ctx, r)
}

var _ crypto.Signer = (*remoteKey)(nil)

// OfferedSchemes returns the signature schemes that a TLS client can really
// verify in a handshake, for CertificateRequest: one that speaks TLS 1.2 at most
// may offer a scheme without a cipher suite that uses its kind of key (RFC 5246
// section 7.4.1.4.1).
func OfferedSchemes(hello *tls.ClientHelloInfo) []uint16 {
	tls13 := slices.Contains(hello.SupportedVersions, uint16(tls.VersionTLS13))
	ecdsa, rsa := tls13, tls13
	for _, id := range hello.CipherSuites {
		switch name := tls.CipherSuiteName(id); {
		case strings.Contains(name, "_ECDSA_"):
			ecdsa = true
		case strings.Contains(name, "_RSA_"):
			rsa = true
		}
	}
	var out []uint16
	for _, s := range hello.SignatureSchemes {
		switch s {
		case tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.Ed25519:
			if !ecdsa {
				continue
			}
		default:
			if !rsa {
				continue
			}
		}
		out = append(out, uint16(s))
	}
	return out
}
