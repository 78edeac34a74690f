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

// Sealer seals private keys under the first master key of its Opener, which opens
// those that are protected already.
type Sealer struct{ table.Opener }

// current is the master key that seals.
func (s Sealer) current() string { return s.Ring.IDs()[0] }

// Protection says how the private keys of a row are kept.
type Protection struct {
	Service    string   `json:"service"`               // cert or dkim
	ID         int64    `json:"id,omitempty"`          // of a certificate
	Name       string   `json:"name"`                  // of a dkim key: where its public part is in DNS
	Kept       string   `json:"kept"`                  // sealed, encrypted, file, plain or none: the weakest of its keys
	MasterKeys []string `json:"master_keys,omitempty"` // of its sealed keys, those in files too
	Unknown    error    `json:"-"`                     // why MasterKeys may lack some
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
		sealed, err := s.block(b, func(key crypto.Signer) ([]byte, error) {
			if !table.Belongs(key, pair.Leaf) {
				return nil, errors.New("private key does not belong to the certificate")
			}
			return pair.Leaf.RawSubjectPublicKeyInfo, nil
		})
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

// block seals one key. public returns its public part as SubjectPublicKeyInfo.
func (s Sealer) block(b *pem.Block, public func(crypto.Signer) ([]byte, error)) (*pem.Block, error) {
	if b.Type == sealing.BlockType && sealing.SealedBy(b) == s.current() {
		return b, nil
	}
	key, err := s.Open(b)
	if err != nil {
		return nil, err
	}
	spki, err := public(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return s.Ring.Seal(der, spki), nil
}

// inFile reports whether the row says where its key is.
func (p Pair) inFile() bool { return strings.HasPrefix(strings.TrimSpace(p.Key), "file:") }

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

// Protections says of each certificate and of each dkim key how its private key is
// kept.
func (d *DB) Protections(ctx context.Context) ([]Protection, error) {
	certs, err := list(ctx, d, `SELECT id, name, chain, coalesce(key, '') FROM certificates ORDER BY name, id`,
		func(scan func(...any) error) (p Protection, err error) {
			var pair Pair
			err = scan(&p.ID, &p.Name, &pair.Chain, &pair.Key)
			p.Service, p.Kept = table.Cert.String(), pair.kept()
			p.sealedBy(pair.Chain, pair.Key)
			return p, err
		})
	if err != nil {
		return nil, err
	}
	dkim, err := list(ctx, d, selectDKIM, func(scan func(...any) error) (p Protection, err error) {
		r, err := scanDKIM(scan)
		p = Protection{Service: table.DKIM.String(), Name: dkimName(r.domain, r.selector), Kept: r.kept()}
		p.sealedBy(r.key)
		return p, err
	})
	return append(certs, dkim...), err
}

// sealedBy finds the master keys of what is sealed in texts, or in the files that
// they refer to: whether the row can be used or not, they may be needed.
func (p *Protection) sealedBy(texts ...string) {
	for _, text := range texts {
		if path, ok := table.KeyFile(text); ok {
			var err error
			if text, err = table.ReadPEMFile(path); err != nil {
				p.Unknown = fmt.Errorf("%s %s: %w", p.Service, p.Name, err)
			}
		}
		for _, id := range table.SealedBy(text) {
			if !slices.Contains(p.MasterKeys, id) {
				p.MasterKeys = append(p.MasterKeys, id)
			}
		}
	}
}

// kept says how the keys of a pair are kept.
func (p Pair) kept() string {
	if p.inFile() {
		return KeptFile
	}
	pairs, err := table.ParseKeyPairs(p.row())
	if err != nil {
		return KeptNone
	}
	kept, _ := protection(pairs)
	return kept
}

// Resealed is what Reseal did.
type Resealed struct {
	Sealed int `json:"sealed"` // under the first master key now
	Left   int `json:"left"`   // as they were: not sealed before, or in a file
}

// add counts a row.
func (r *Resealed) add(sealed bool) {
	if sealed {
		r.Sealed++
	} else {
		r.Left++
	}
}

// Reseal seals the keys of all certificates, and those that sign mail, under the
// first master key, in one transaction; those that are not sealed only with all. Of
// a row that cannot be opened nothing is changed, nor of any other.
func (d *DB) Reseal(ctx context.Context, s Sealer, all bool) (Resealed, error) {
	var done Resealed
	err := d.inTx(ctx, func(tx tx) error {
		if err := tx.resealCertificates(ctx, s, all, &done); err != nil {
			return err
		}
		return tx.resealDKIM(ctx, s, all, &done)
	})
	if err != nil {
		return Resealed{}, err
	}
	return done, nil
}

func (t tx) resealCertificates(ctx context.Context, s Sealer, all bool, done *Resealed) error {
	rows, err := t.QueryContext(ctx, t.d.text(`SELECT id FROM certificates ORDER BY id`))
	ids, err := collected(rows, err, func(scan func(...any) error) (id int64, err error) {
		err = scan(&id)
		return id, err
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		sealed, err := t.reseal(ctx, s, id, all)
		if err != nil {
			return err
		}
		done.add(sealed)
	}
	return nil
}

// resealDKIM seals the keys that sign mail. Who changes one of them at the same time
// waits for the end of the transaction.
func (t tx) resealDKIM(ctx context.Context, s Sealer, all bool, done *Resealed) error {
	query := selectDKIM
	if t.d == postgresDialect {
		query += ` FOR UPDATE`
	}
	rows, err := t.QueryContext(ctx, query)
	keys, err := collected(rows, err, scanDKIM)
	if err != nil {
		return err
	}
	for _, r := range keys {
		text, err := r.resealed(s, all)
		if err == nil && text != "" && text != r.key {
			_, err = t.exec(ctx, `UPDATE dkim_keys SET key = ? WHERE domain = ? AND selector = ?`, text, r.domain, r.selector)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r, err)
		}
		done.add(text != "")
	}
	return nil
}

// resealed returns the key sealed under the first master key; empty when it is left
// as it is.
func (r dkimRow) resealed(s Sealer, all bool) (string, error) {
	switch r.kept() {
	case KeptSealed:
	case KeptEncrypted:
		if !all || len(s.Passphrases) == 0 {
			return "", nil
		}
	case KeptPlain:
		if _, fault := table.ParseDKIM(table.Row{"x", r.key}); fault != nil || !all {
			return "", nil
		}
	default:
		return "", nil
	}
	return s.SealDKIM(r.key)
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
