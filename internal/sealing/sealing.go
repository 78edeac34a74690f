// Package sealing keeps private keys unreadable where they are stored: sealed with
// AES-256-GCM under a master key that is in a file, or encrypted under a
// passphrase (PKCS#8, RFC 5958).
//
// A sealed key is a PEM block
//
//	-----BEGIN SEALED PRIVATE KEY-----
//	Master-Key: 1f6a...       which master key sealed it
//	Public-Key: 90b1...       SHA-256 of its SubjectPublicKeyInfo
//
// whose content is a nonce of 12 bytes and the ciphertext of a PKCS#8 key. The
// headers and the version of the format are authenticated with it.
package sealing

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// BlockType is the label of a sealed key.
const BlockType = "SEALED PRIVATE KEY"

// The headers of a sealed key.
const (
	masterHeader = "Master-Key"
	// PublicHeader tells which certificate a sealed key belongs to.
	PublicHeader = "Public-Key"
)

const (
	keySize = 32
	maxKeys = 100
	version = "tabard sealed key 1"
)

// ErrSealed is wrapped when a sealed key cannot be opened. The text of no error
// here quotes a secret.
var ErrSealed = errors.New("sealed private key")

// Ring is master keys, the one to seal with first. It is immutable.
type Ring struct{ keys []masterKey }

type masterKey struct {
	id   string
	aead cipher.AEAD
	text string // as in the file
}

// ParseRing reads a file of master keys: lines of 32 bytes in base64; '#' begins a
// comment line.
func ParseRing(text []byte) (*Ring, error) {
	r := &Ring{}
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := newMasterKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		if r.find(k.id) != nil {
			return nil, fmt.Errorf("line %d: the same key again", n+1)
		}
		if r.keys = append(r.keys, k); len(r.keys) > maxKeys {
			return nil, fmt.Errorf("line %d: more than %d keys", n+1, maxKeys)
		}
	}
	if len(r.keys) == 0 {
		return nil, errors.New("no master key in it")
	}
	return r, nil
}

func newMasterKey(text string) (masterKey, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != keySize {
		return masterKey{}, fmt.Errorf("not %d bytes in base64", keySize)
	}
	defer clear(raw)
	block, err := aes.NewCipher(raw)
	if err != nil {
		return masterKey{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return masterKey{}, err
	}
	sum := sha256.Sum256(append([]byte("tabard master key\x00"), raw...))
	return masterKey{hex.EncodeToString(sum[:8]), aead, text}, nil
}

// WithNewKey returns a ring with a new key in front. The receiver may be nil.
func (r *Ring) WithNewKey() (*Ring, error) {
	k, err := newMasterKey(base64.StdEncoding.EncodeToString(randomBytes(keySize)))
	if err != nil {
		return nil, err
	}
	out := &Ring{keys: []masterKey{k}}
	if r != nil && len(r.keys) >= maxKeys {
		return nil, fmt.Errorf("there are %d master keys already: forget those that nothing needs", len(r.keys))
	}
	if r != nil {
		out.keys = append(out.keys, r.keys...)
	}
	return out, nil
}

// Only returns a ring with the first key, and of the others those that keep says.
func (r *Ring) Only(keep func(id string) bool) *Ring {
	out := &Ring{keys: r.keys[:1:1]}
	for _, k := range r.keys[1:] {
		if keep(k.id) {
			out.keys = append(out.keys, k)
		}
	}
	return out
}

// IDs names the keys, the one to seal with first.
func (r *Ring) IDs() []string {
	var ids []string
	for _, k := range r.keys {
		ids = append(ids, k.id)
	}
	return ids
}

// Text is the content of the file. It is secret.
func (r *Ring) Text() []byte {
	return r.TextUnder("Master keys of Tabard: whoever reads this can open the sealed keys in its tables.", "The first one seals. See tabard seal --help.")
}

// TextUnder is Text with other lines of comment.
func (r *Ring) TextUnder(comment ...string) []byte {
	var b bytes.Buffer
	for _, line := range comment {
		fmt.Fprintf(&b, "# %s\n", line)
	}
	for _, k := range r.keys {
		fmt.Fprintf(&b, "# %s\n%s\n", k.id, k.text)
	}
	return b.Bytes()
}

// String keeps the keys out of logs.
func (r *Ring) String() string { return "master keys " + strings.Join(r.IDs(), ", ") }

// GoString keeps the keys out of %#v.
func (r *Ring) GoString() string { return r.String() }

func (r *Ring) find(id string) *masterKey {
	for i := range r.keys {
		if r.keys[i].id == id {
			return &r.keys[i]
		}
	}
	return nil
}

// Seal returns the sealed form of a PKCS#8 key, for the public key whose
// SubjectPublicKeyInfo is spki.
func (r *Ring) Seal(pkcs8, spki []byte) *pem.Block {
	k := r.keys[0]
	b := &pem.Block{Type: BlockType, Headers: map[string]string{masterHeader: k.id, PublicHeader: KeyDigest(spki)}}
	nonce := randomBytes(k.aead.NonceSize())
	b.Bytes = k.aead.Seal(nonce, nonce, pkcs8, associated(b))
	return b
}

// Open returns the PKCS#8 key in a sealed block. The caller clears it.
func (r *Ring) Open(b *pem.Block) ([]byte, error) {
	k := r.find(SealedBy(b))
	if k == nil {
		return nil, fmt.Errorf("%w: the master key %.40q, which sealed it, is not in the file", ErrSealed, SealedBy(b))
	}
	n := k.aead.NonceSize()
	if len(b.Bytes) < n+k.aead.Overhead() {
		return nil, fmt.Errorf("%w: too short", ErrSealed)
	}
	pkcs8, err := k.aead.Open(nil, b.Bytes[:n], b.Bytes[n:], associated(b))
	if err != nil {
		return nil, fmt.Errorf("%w: it was changed after it was sealed", ErrSealed)
	}
	return pkcs8, nil
}

// KeyDigest names a public key by its SubjectPublicKeyInfo: the SHA-256 of it, in
// hexadecimal.
func KeyDigest(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// SealedBy names the master key of a sealed block.
func SealedBy(b *pem.Block) string { return b.Headers[masterHeader] }

// associated is what is authenticated beside the key.
func associated(b *pem.Block) []byte {
	return []byte(version + "\x00" + b.Headers[masterHeader] + "\x00" + b.Headers[PublicHeader])
}

// randomBytes never fails, see crypto/rand.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}
