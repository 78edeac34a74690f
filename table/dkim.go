package table

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"

	"tabard/internal/address"
	"tabard/internal/sealing"
)

// DKIMKey is one signing key of a domain. Exactly one of Key, Block and File is set.
type DKIMKey struct {
	Selector string
	Key      crypto.Signer // RSA or Ed25519 (RFC 8463); secret
	Block    *pem.Block    // sealed or encrypted, for an Opener
	File     string        // where the key is
}

// String keeps the key out of logs.
func (k DKIMKey) String() string { return "dkim key " + k.Selector }

// GoString keeps the key out of %#v.
func (k DKIMKey) GoString() string { return k.String() }

// ParseDKIM reads a dkim answer: pairs of columns, selector and private key, or
// single columns "selector:key". A key is PEM, base64 of PEM or of its DER, or
// file:/path. Errors never quote the key.
func ParseDKIM(row Row) ([]DKIMKey, error) {
	var keys []DKIMKey
	for len(row) > 0 {
		selector, text, single := "", "", false
		if selector, text, single = cutSelector(row[0]); single {
			row = row[1:]
		} else if len(row) > 1 {
			selector, text, row = row[0], row[1], row[2:]
		} else {
			return nil, errors.New("dkim: a selector without a key")
		}
		k, err := parseDKIMKey(selector, text)
		if err != nil {
			return nil, fmt.Errorf("dkim: selector %q: %w", address.OneLine(selector, 80), err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("dkim: nothing in the answer")
	}
	return keys, nil
}

// HideDKIM returns a dkim answer with its selectors as they are and word instead of
// everything else, which may be a key.
func HideDKIM(row Row, word string) []string {
	shown := make([]string, 0, len(row))
	for i := 0; i < len(row); i++ {
		selector, _, single := cutSelector(row[i])
		switch {
		case address.CheckDomain(selector) != nil:
			shown = append(shown, word)
		case single:
			shown = append(shown, selector+":"+word)
		case i+1 < len(row):
			shown = append(shown, selector, word)
			i++
		default: // a key without a selector, perhaps
			shown = append(shown, word)
		}
	}
	return shown
}

// cutSelector takes "selector:key" apart.
func cutSelector(col string) (selector, key string, ok bool) {
	selector, key, ok = strings.Cut(col, ":")
	return strings.TrimSpace(selector), key, ok
}

func parseDKIMKey(selector, text string) (DKIMKey, error) {
	// RFC 6376 section 3.1: a selector is a sequence of labels.
	if selector == "" || selector[0] == '[' || address.CheckDomain(selector) != nil {
		return DKIMKey{}, errors.New("is not made of labels")
	}
	k := DKIMKey{Selector: strings.ToLower(selector)}
	text = strings.TrimSpace(text)
	if file, ok := strings.CutPrefix(text, "file:"); ok {
		if !path.IsAbs(file) {
			return DKIMKey{}, errors.New("file: wants an absolute path")
		}
		k.File = file
		return k, nil
	}
	block, err := KeyBlock(text)
	if err != nil {
		return DKIMKey{}, err
	}
	if block.Type == sealing.BlockType || block.Type == sealing.EncryptedType {
		k.Block = block
		return k, nil
	}
	k.Key, err = Opener{}.OpenDKIM(block)
	return k, err
}

// OpenDKIM returns the private key in a block, if it can sign mail (RFC 8301
// section 3.2, RFC 8463). Errors never quote key material.
func (o Opener) OpenDKIM(b *pem.Block) (crypto.Signer, error) {
	key, err := o.Open(b)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if bits := k.N.BitLen(); bits < 1024 || bits > 8192 {
			return nil, fmt.Errorf("RSA key of %d bits; want 1024 to 8192", bits)
		}
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return nil, errors.New("an ECDSA key cannot sign mail; RSA and Ed25519 can")
	}
	return nil, fmt.Errorf("a key of type %T cannot sign mail; RSA and Ed25519 can", key)
}

// ReadDKIM reads the private key in a text: PEM, or base64 of PEM or of DER.
func (o Opener) ReadDKIM(text string) (crypto.Signer, error) {
	block, err := KeyBlock(text)
	if err != nil {
		return nil, err
	}
	return o.OpenDKIM(block)
}

// KeyBlock finds the private key of a dkim answer, which is PEM, base64 of PEM or
// base64 of DER. It may be sealed or encrypted. Errors never quote it.
func KeyBlock(text string) (*pem.Block, error) {
	if blocks, err := pemBlocks(text); err == nil {
		for _, b := range blocks {
			if strings.HasSuffix(b.Type, "PRIVATE KEY") {
				return b, nil
			}
		}
		return nil, errors.New("no PRIVATE KEY block")
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || len(der) == 0 {
		return nil, errors.New("key is neither PEM nor base64")
	}
	return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, nil
}
