package tabletest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	"tabard/table"
)

// Pair is a certificate and its key, in PEM.
type Pair struct {
	Chain, Key string
	Leaf       *x509.Certificate
	Signer     crypto.Signer
}

// NewPair makes a certificate for name, with a key of kind "ecdsa", "rsa" or
// "ed25519", signed by issuer, or by itself and an authority when that is nil.
// The chain holds the leaf alone.
func NewPair(t testing.TB, name, kind string, issuer *Pair) Pair {
	t.Helper()
	key, err := newKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: issuer == nil, BasicConstraintsValid: true,
	}
	parent, signer := tmpl, key
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.Signer
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Pair{
		Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
		Leaf:  leaf, Signer: key,
	}
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "ecdsa":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, errors.New("unknown kind of key " + kind)
}

func runCertificates(t *testing.T, open Opener) {
	ctx := context.Background()
	ca := NewPair(t, "Suite CA", "ecdsa", nil)
	mx, rsaMX := NewPair(t, "mx.example.org", "ecdsa", &ca), NewPair(t, "mx.example.org", "rsa", &ca)
	wild := NewPair(t, "*.example.net", "ed25519", &ca)
	tab := opened(t, open, mapping(table.Cert,
		Record{"mx.example.org", []string{mx.Chain + ca.Chain, mx.Key, rsaMX.Chain + ca.Chain, rsaMX.Key}},
		Record{"*.Example.net", []string{wild.Chain, wild.Key}}))
	pairs, err := tab.KeyPairs(ctx, "MX.example.org")
	if err != nil || len(pairs) != 2 || !pairs[0].Leaf.Equal(mx.Leaf) || !pairs[1].Leaf.Equal(rsaMX.Leaf) {
		t.Fatalf("key pairs = %v, %v", pairs, err)
	}
	if len(pairs[0].Chain) != 2 || string(pairs[0].Chain[1]) != string(ca.Leaf.Raw) || string(pairs[1].Key) != rsaMX.Key {
		t.Errorf("chain of %d, key differs: %v", len(pairs[0].Chain), string(pairs[1].Key) != rsaMX.Key)
	}
	if pairs, err = tab.KeyPairs(ctx, "*.example.net"); err != nil || len(pairs) != 1 || !pairs[0].Leaf.Equal(wild.Leaf) {
		t.Errorf("wildcard: %v, %v", pairs, err)
	}
	// The wildcard is the caller's second key, not the backend's.
	if _, err = tab.KeyPairs(ctx, "a.example.net"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("name below a wildcard: %v; want not found", err)
	}
	anchors := opened(t, open, mapping(table.CA, Record{"internal", []string{ca.Chain}}))
	got, err := anchors.Authorities(ctx, "Internal")
	if err != nil || len(got.Anchors) != 1 || !got.Anchors[0].Equal(ca.Leaf) {
		t.Errorf("anchors = %v, %v", got, err)
	}
	if _, err = anchors.Authorities(ctx, "other"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("other anchors: %v; want not found", err)
	}
}
