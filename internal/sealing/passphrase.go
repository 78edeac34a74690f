package sealing

import (
	"crypto"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"
)

// EncryptedType is the label of encrypted PKCS#8.
const EncryptedType = "ENCRYPTED PRIVATE KEY"

// What opening one encrypted key may cost.
const (
	maxIterations = 5_000_000
	maxScrypt     = 256 << 20 // bytes
	// maxPassphrases bounds how many are tried.
	maxPassphrases = 100
)

// ErrEncrypted is wrapped when an encrypted key cannot be opened.
var ErrEncrypted = errors.New("encrypted private key")

// ParsePassphrases reads a file of passphrases: one on a line, with the blanks it
// has; empty lines are none.
func ParsePassphrases(text []byte) ([][]byte, error) {
	var all [][]byte
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			all = append(all, []byte(line))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no passphrase in it")
	}
	if len(all) > maxPassphrases {
		return nil, fmt.Errorf("more than %d passphrases", maxPassphrases)
	}
	return all, nil
}

// Decrypt opens an encrypted PKCS#8 key with the first passphrase that does.
func Decrypt(b *pem.Block, passphrases [][]byte) (crypto.PrivateKey, error) {
	if err := affordable(b.Bytes); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncrypted, err)
	}
	for _, p := range passphrases {
		if key, err := decrypt(b.Bytes, p); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("%w: none of %d passphrases opens it", ErrEncrypted, len(passphrases))
}

// decrypt keeps what the library makes of strange parameters from ending the
// process: rows are not ours.
func decrypt(der, passphrase []byte) (key crypto.PrivateKey, err error) {
	defer func() {
		if r := recover(); r != nil {
			key, err = nil, fmt.Errorf("%w: %v", ErrEncrypted, r)
		}
	}()
	return pkcs8.ParsePKCS8PrivateKey(der, passphrase)
}

type algorithm struct {
	ID     asn1.ObjectIdentifier
	Params asn1.RawValue `asn1:"optional"`
}

// affordable refuses a key whose derivation was made to take for ever (RFC 8018
// appendix A.4, RFC 7914 section 7).
func affordable(der []byte) error {
	var info struct {
		Algorithm algorithm
		Data      []byte
	}
	var pbes2 struct{ KDF, Cipher algorithm }
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return errors.New("not EncryptedPrivateKeyInfo")
	}
	if _, err := asn1.Unmarshal(info.Algorithm.Params.FullBytes, &pbes2); err != nil {
		return errors.New("not encrypted by PBES2")
	}
	var pbkdf2 struct {
		Salt       []byte
		Iterations int
		KeyLength  int       `asn1:"optional"`
		PRF        algorithm `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(pbes2.KDF.Params.FullBytes, &pbkdf2); err == nil && pbes2.KDF.ID.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}) {
		if pbkdf2.Iterations > maxIterations {
			return fmt.Errorf("%d iterations, at most %d are allowed", pbkdf2.Iterations, maxIterations)
		}
		return nil
	}
	var scrypt struct {
		Salt      []byte
		N, R, P   int
		KeyLength int `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(pbes2.KDF.Params.FullBytes, &scrypt); err != nil {
		return errors.New("key derivation is neither PBKDF2 nor scrypt")
	}
	if scrypt.N < 2 || scrypt.R < 1 || scrypt.P < 1 || scrypt.N > maxScrypt/128 || scrypt.R > maxScrypt/128/scrypt.N || scrypt.P > 16 {
		return fmt.Errorf("scrypt with N=%d, r=%d, p=%d costs too much", scrypt.N, scrypt.R, scrypt.P)
	}
	return nil
}
