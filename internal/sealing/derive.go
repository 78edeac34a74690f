package sealing

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// ErrNoKey is wrapped when a master key is asked for that the ring does not have.
var ErrNoKey = errors.New("the master key is missing")

// Derive returns a key of 32 bytes for one purpose, which info names, and one salt,
// from the master key id: HKDF with SHA-256 (RFC 5869). Sealing private keys uses the
// master key itself, so that no derived key is ever one of those.
func (r *Ring) Derive(id, info string, salt []byte) ([]byte, error) {
	var k *masterKey
	if r != nil {
		k = r.find(id)
	}
	if k == nil {
		return nil, fmt.Errorf("%w: %.40q", ErrNoKey, id)
	}
	raw, err := base64.StdEncoding.DecodeString(k.text)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return hkdf.Key(sha256.New, raw, salt, info, keySize)
}
