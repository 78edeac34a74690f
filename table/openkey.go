package table

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"tabard/internal/sealing"
)

// Opener opens private keys, whatever protects them where they are stored.
type Opener struct {
	Ring        *sealing.Ring // of sealed keys; nil: none is opened
	Passphrases [][]byte      // of encrypted PKCS#8 keys; empty: none is opened
}

// Open returns the key in a block. Errors never quote key material.
func (o Opener) Open(b *pem.Block) (crypto.Signer, error) {
	switch {
	case b.Type == sealing.BlockType && o.Ring == nil:
		return nil, errors.New("private key is sealed, and custody master-key names no file that opens it")
	case b.Type == sealing.BlockType:
		der, err := o.Ring.Open(b)
		if err != nil {
			return nil, err
		}
		defer clear(der)
		return ParsePrivateKey(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	case b.Type == sealing.EncryptedType && len(o.Passphrases) == 0:
		return nil, errors.New("private key is encrypted, and custody passphrases names no file that opens it")
	case b.Type == sealing.EncryptedType:
		key, err := sealing.Decrypt(b, o.Passphrases)
		if err != nil {
			return nil, err
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("private key of a kind that cannot sign: %T", key)
		}
		return signer, nil
	case len(b.Headers) > 0:
		return nil, errors.New("private key is encrypted in the way of RFC 1421, which is not safe; make PKCS#8 of it: openssl pkcs8 -topk8")
	}
	return ParsePrivateKey(b)
}

// Belongs reports whether a private key is that of a certificate.
func Belongs(key crypto.Signer, c *x509.Certificate) bool {
	pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(c.PublicKey)
}

// KeyDigest names the public key of a certificate: the SHA-256 of its
// SubjectPublicKeyInfo, in hexadecimal.
func KeyDigest(c *x509.Certificate) string { return sealing.KeyDigest(c.RawSubjectPublicKeyInfo) }
