package provision

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/internal/sealing"
	"tabard/table"
)

// Sealer seals private keys, and opens those that are protected already.
type Sealer struct {
	Ring        *sealing.Ring
	Passphrases [][]byte // of encrypted keys; empty: they stay as they are
}

// Protection says how the private keys of a row are kept.
type Protection struct {
	ID         int64    `json:"id"`
	Name       string   `json:"name"`
	Kept       string   `json:"kept"`                  // sealed, encrypted, file, plain or none: the weakest of its keys
	MasterKeys []string `json:"master_keys,omitempty"` // of its sealed keys
}

// How a private key is kept.
const (
	KeptSealed    = "sealed"
	KeptEncrypted = "encrypted"
	KeptFile      = "file"
	KeptPlain     = "plain"
	KeptNone      = "none"
)

// ErrNoPassphrase means that a key is encrypted and cannot be sealed: nothing opens
// it.
var ErrNoPassphrase = errors.New("the private key is encrypted, and custody passphrases names no file that opens it")

// Seal returns the pair with its keys sealed under the first master key. A key in
// another file stays there.
func (s Sealer) Seal(p Pair) (Pair, error) {
	if kept, _ := p.protection(); kept == KeptFile {
		return p, nil
	}
	pairs, err := table.ParseKeyPairs(p.row())
	if err != nil {
		return p, err
	}
	var chain, keys bytes.Buffer
	written := make(map[string]bool)
	for _, pair := range pairs {
		b, _ := pem.Decode(pair.Key)
		sealed, err := s.block(b, pair.Leaf)
		if err != nil {
			return p, err
		}
		keys.Write(pem.EncodeToMemory(sealed))
		for _, der := range pair.Chain {
			if !written[string(der)] {
				written[string(der)] = true
				chain.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
			}
		}
	}
	return Pair{Chain: chain.String(), Key: keys.String()}, nil
}

// block seals one key of a certificate.
func (s Sealer) block(b *pem.Block, leaf *x509.Certificate) (*pem.Block, error) {
	var key crypto.PrivateKey
	var err error
	switch {
	case b.Type == sealing.BlockType && sealing.SealedBy(b) == s.Ring.IDs()[0]:
		return b, nil
	case b.Type == sealing.BlockType:
		var der []byte
		if der, err = s.Ring.Open(b); err == nil {
			defer clear(der)
			key, err = table.ParsePrivateKey(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		}
	case b.Type == sealing.EncryptedType && len(s.Passphrases) == 0:
		return nil, ErrNoPassphrase
	case b.Type == sealing.EncryptedType:
		key, err = sealing.Decrypt(b, s.Passphrases)
	default:
		key, err = table.ParsePrivateKey(b)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T cannot sign", key)
	}
	if pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(leaf.PublicKey) {
		return nil, errors.New("private key does not belong to the certificate")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return s.Ring.Seal(der, leaf.RawSubjectPublicKeyInfo), nil
}

// protection says how the keys of a pair are kept: the weakest way of them, and
// the master keys of those that are sealed.
func (p Pair) protection() (kept string, masterKeys []string) {
	if strings.HasPrefix(strings.TrimSpace(p.Key), "file:") {
		return KeptFile, nil
	}
	pairs, err := table.ParseKeyPairs(p.row())
	if err != nil || len(pairs) == 0 {
		return KeptNone, nil
	}
	kept = KeptSealed
	for _, pair := range pairs {
		switch b, _ := pem.Decode(pair.Key); b.Type {
		case sealing.BlockType:
			if id := sealing.SealedBy(b); !slices.Contains(masterKeys, id) {
				masterKeys = append(masterKeys, id)
			}
		case sealing.EncryptedType:
			if kept == KeptSealed {
				kept = KeptEncrypted
			}
		default:
			kept = KeptPlain
		}
	}
	return kept, masterKeys
}

// Protections says of each certificate how its key is kept.
func (d *DB) Protections(ctx context.Context) ([]Protection, error) {
	return list(ctx, d, `SELECT id, name, chain, coalesce(key, '') FROM certificates ORDER BY name, id`,
		func(scan func(...any) error) (p Protection, err error) {
			var pair Pair
			err = scan(&p.ID, &p.Name, &pair.Chain, &pair.Key)
			p.Kept, p.MasterKeys = pair.protection()
			return p, err
		})
}

// Resealed is what Reseal did.
type Resealed struct {
	Sealed int `json:"sealed"` // under the first master key now
	Left   int `json:"left"`   // as they were: not sealed before, or in a file
}

// Reseal seals the keys of all certificates under the first master key, in one
// transaction; those that are not sealed only with all. Of a row that cannot be
// opened nothing is changed, nor of any other.
func (d *DB) Reseal(ctx context.Context, s Sealer, all bool) (Resealed, error) {
	var done Resealed
	err := d.inTx(ctx, func(tx tx) error {
		ids, err := tx.ids(ctx, `SELECT id FROM certificates ORDER BY id`)
		if err != nil {
			return err
		}
		for _, id := range ids {
			changed, err := tx.reseal(ctx, s, id, all)
			if err != nil {
				return err
			}
			if changed {
				done.Sealed++
			} else {
				done.Left++
			}
		}
		return nil
	})
	if err != nil {
		return Resealed{}, err
	}
	return done, nil
}

func (t tx) ids(ctx context.Context, query string) ([]int64, error) {
	rows, err := t.QueryContext(ctx, t.d.text(query))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// reseal seals the key of one row, and reports whether it is sealed now. A row that
// somebody changes at the same time waits for the end of the transaction.
func (t tx) reseal(ctx context.Context, s Sealer, id int64, all bool) (bool, error) {
	query := `SELECT name, chain, coalesce(key, '') FROM certificates WHERE id = ?`
	if t.d == postgresDialect {
		query += ` FOR UPDATE`
	}
	var name string
	var p Pair
	err := t.QueryRowContext(ctx, t.d.text(query), id).Scan(&name, &p.Chain, &p.Key)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil // somebody removed it
	}
	if err != nil {
		return false, err
	}
	kept, by := p.protection()
	switch {
	case kept == KeptSealed && len(by) == 1 && by[0] == s.Ring.IDs()[0]:
		return true, nil
	case kept == KeptFile, kept == KeptNone, len(by) == 0 && !all, kept == KeptEncrypted && len(s.Passphrases) == 0:
		return false, nil
	}
	sealed, err := s.Seal(p)
	if err == nil {
		_, err = t.exec(ctx, `UPDATE certificates SET chain = ?, key = ? WHERE id = ?`, sealed.Chain, sealed.Key, id)
	}
	if err != nil {
		return false, fmt.Errorf("certificate %s, id %d: %w", name, id, err)
	}
	return true, nil
}
