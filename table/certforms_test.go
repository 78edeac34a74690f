package table_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"testing"
)

// otherForms returns the older encodings of a key, by PEM label.
func otherForms(t *testing.T, key crypto.Signer) map[string][]byte {
	t.Helper()
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return map[string][]byte{"RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(k)}
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return map[string][]byte{"EC PRIVATE KEY": der}
	}
	t.Fatalf("no other form of %T", key)
	return nil
}
