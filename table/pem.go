package table

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/internal/sealing"
)

// Bounds of one PEM answer.
const (
	maxPEM    = 4 << 20
	maxBlocks = 1000
)

// pemBlocks returns the blocks of PEM text, or of base64 of PEM text. Empty
// text has none.
func pemBlocks(text string) ([]*pem.Block, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("PEM longer than %d bytes", maxPEM)
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if !strings.Contains(text, "-----BEGIN") {
		var err error
		if text, err = unwrapBase64(text); err != nil {
			return nil, err
		}
	}
	var blocks []*pem.Block
	rest := []byte(text)
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if len(blocks) == maxBlocks {
			return nil, fmt.Errorf("more than %d PEM blocks", maxBlocks)
		}
		blocks = append(blocks, b)
	}
	if begins := strings.Count(text, "-----BEGIN "); begins != len(blocks) {
		return nil, fmt.Errorf("%d of %d PEM blocks are damaged", begins-len(blocks), begins)
	}
	return blocks, nil
}

// unwrapBase64 undoes the base64 that makes PEM fit on one line, as Postfix'
// postmap -F writes it.
func unwrapBase64(text string) (string, error) {
	clean := strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, text)
	b, err := base64.StdEncoding.DecodeString(clean)
	if err != nil || !strings.Contains(string(b), "-----BEGIN") {
		return "", errors.New("neither PEM nor base64 of PEM")
	}
	return string(b), nil
}

// SealedBy names the master keys of the sealed private keys in a text, each once. A
// text that is not PEM has none.
func SealedBy(text string) []string {
	blocks, err := pemBlocks(text)
	if err != nil {
		return nil
	}
	var ids []string
	for _, b := range blocks {
		if id := sealing.SealedBy(b); b.Type == sealing.BlockType && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// PublicPEM returns the certificate blocks of a text that may hold keys too, and
// nothing of a text that is not PEM: what may be shown.
func PublicPEM(text string) string {
	blocks, err := pemBlocks(text)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, block := range blocks {
		if block.Type == "CERTIFICATE" {
			b.Write(pem.EncodeToMemory(block))
		}
	}
	return b.String()
}
