package table

import (
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"

	"tabard/internal/address"
)

// DKIMKey is one signing key of a domain. Exactly one of Key and File is set.
type DKIMKey struct {
	Selector string
	Key      crypto.Signer // RSA or Ed25519 (RFC 8463); secret
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

// cutSelector takes "selector:key" apart.
func cutSelector(col string) (selector, key string, ok bool) {
	selector, key, ok = strings.Cut(col, ":")
	return strings.TrimSpace(selector), key, ok
}

func parseDKIMKey(selector, text string) (DKIMKey, error) {
	// RFC 6376 section 3.1: a selector is a sequence of labels.
	if selector == "" || address.CheckDomain(selector) != nil {
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
	block, err := keyBlock(text)
	if err != nil {
		return DKIMKey{}, err
	}
	if k.Key, err = ParsePrivateKey(block); err != nil {
		return DKIMKey{}, err
	}
	if _, ec := k.Key.(*ecdsa.PrivateKey); ec {
		return DKIMKey{}, errors.New("an ECDSA key cannot sign mail; RSA and Ed25519 can")
	}
	return k, nil
}

// keyBlock finds the private key in PEM, base64 of PEM or base64 of DER.
func keyBlock(text string) (*pem.Block, error) {
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
