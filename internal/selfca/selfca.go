// Package selfca makes a private certificate authority and certificates signed
// by it: for a server that is tried out before it has a public name, and for
// tests. The authority's key is never stored; who needs another certificate
// later makes a new authority.
package selfca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// KeyType is the algorithm of a certificate's key.
type KeyType string

// The key types. ECDSA is the default: Go signs RSA-2048 many times slower.
const (
	ECDSA   KeyType = "ecdsa"   // P-256
	RSA     KeyType = "rsa"     // 2048 bits
	Ed25519 KeyType = "ed25519" // few mail servers accept it yet
)

// Authority is a certificate authority whose key lives in memory only.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes an authority called name, valid for ten years.
func New(name string, now time.Time) (*Authority, error) {
	key, err := newKey(ECDSA)
	if err != nil {
		return nil, err
	}
	tmpl, err := template(name, now, now.AddDate(10, 0, 0))
	if err != nil {
		return nil, err
	}
	tmpl.IsCA = true
	tmpl.BasicConstraintsValid = true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("authority %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority %q: %w", name, err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Request describes a certificate to issue.
type Request struct {
	Names     []string // DNS names and IP addresses; the first is the common name
	Key       KeyType  // empty: ECDSA
	NotBefore time.Time
	NotAfter  time.Time
	Usages    []x509.ExtKeyUsage // empty: server and client authentication
}

// Issue returns a certificate chain (leaf, then the authority) and its private
// key (PKCS#8), both PEM.
func (a *Authority) Issue(r Request) (chain, key []byte, err error) {
	if len(r.Names) == 0 {
		return nil, nil, fmt.Errorf("a certificate needs a name")
	}
	signer, err := newKey(r.Key)
	if err != nil {
		return nil, nil, err
	}
	tmpl, err := template(r.Names[0], r.NotBefore, r.NotAfter)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range r.Names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = r.Usages
	if len(r.Usages) == 0 {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, signer.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %q: %w", r.Names[0], err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %q: %w", r.Names[0], err)
	}
	chain = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.PEM()...)
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

func newKey(t KeyType) (crypto.Signer, error) {
	switch t {
	case ECDSA, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("unknown key type %q; want ecdsa, rsa or ed25519", t)
}

func template(name string, from, to time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    from,
		NotAfter:     to,
	}, nil
}
