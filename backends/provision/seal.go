package provision

import (
	"bytes"
	"context"
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

// Sealer seals private keys under the first master key of its Opener, which opens
// those that are protected already.
type Sealer struct{ table.Opener }

// current is the master key that seals.
func (s Sealer) current() string { return s.Ring.IDs()[0] }

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

// Seal returns the pair with its keys sealed under the first master key. A key in
// another file stays there.
func (s Sealer) Seal(p Pair) (Pair, error) {
	if p.inFile() {
		return p, nil
	}
	pairs, err := table.ParseKeyPairs(p.row())
	if err != nil {
		return p, err
	}
	return s.pairs(pairs)
}

// pairs writes a row with its keys sealed.
func (s Sealer) pairs(pairs []table.KeyPair) (Pair, error) {
	var chain, keys bytes.Buffer
	written := make(map[string]bool)
	for _, pair := range pairs {
		b, _ := pem.Decode(pair.Key)
		sealed, err := s.block(b, pair.Leaf)
		if err != nil {
			return Pair{}, err
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
	if b.Type == sealing.BlockType && sealing.SealedBy(b) == s.current() {
		return b, nil
	}
	key, err := s.Open(b)
	if err != nil {
		return nil, err
	}
	if !table.Belongs(key, leaf) {
		return nil, errors.New("private key does not belong to the certificate")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return s.Ring.Seal(der, leaf.RawSubjectPublicKeyInfo), nil
}

// inFile reports whether the row says where its key is.
func (p Pair) inFile() bool { return strings.HasPrefix(strings.TrimSpace(p.Key), "file:") }

// protection says how the keys of a pair are kept.
func (p Pair) protection() (kept string, masterKeys []string) {
	if p.inFile() {
		return KeptFile, nil
	}
	pairs, err := table.ParseKeyPairs(p.row())
	if err != nil {
		return KeptNone, nil
	}
	return protection(pairs)
}

// protection says how keys are kept: the weakest way of them, and the master keys
// of those that are sealed.
func protection(pairs []table.KeyPair) (kept string, masterKeys []string) {
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
	pairs, fault := table.ParseKeyPairs(p.row())
	kept, by := protection(pairs)
	switch {
	case p.inFile(), fault != nil, len(by) == 0 && !all, kept == KeptEncrypted && len(s.Passphrases) == 0:
		return false, nil
	case kept == KeptSealed && slices.Equal(by, []string{s.current()}):
		return true, nil
	}
	sealed, err := s.pairs(pairs)
	if err == nil {
		_, err = t.exec(ctx, `UPDATE certificates SET chain = ?, key = ? WHERE id = ?`, sealed.Chain, sealed.Key, id)
	}
	if err != nil {
		return false, fmt.Errorf("certificate %s, id %d: %w", name, id, err)
	}
	return true, nil
}
