package sealing

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// NoKeyError means that a ring does not have a master key.
type NoKeyError struct{ ID string }

// Error implements error.
func (e *NoKeyError) Error() string { return fmt.Sprintf("the key %.40q is missing", e.ID) }

// Has reports whether the master key id is in the ring, which may be nil.
func (r *Ring) Has(id string) bool { return r != nil && r.find(id) != nil }

// Derive returns a key of 32 bytes for one purpose, which info names, and one salt,
// from the master key id: HKDF with SHA-256 (RFC 5869). Sealing private keys uses the
// master key itself, so that no derived key is ever one of those. The error is a
// NoKeyError when there is no such key.
func (r *Ring) Derive(id, info string, salt []byte) ([]byte, error) {
	if !r.Has(id) {
		return nil, &NoKeyError{id}
	}
	raw, err := base64.StdEncoding.DecodeString(r.find(id).text)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return hkdf.Key(sha256.New, raw, salt, info, keySize)
}
