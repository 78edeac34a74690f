package provision

import (
	"bytes"
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"tabard/internal/address"
	"tabard/table"
)

// Certificate is a row of certificates, without the key.
type Certificate struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Chain string `json:"chain"` // PEM; key blocks in it are left out
	// Leaves are the certificates that have a key in the row, in the order of the
	// keys.
	Leaves []*x509.Certificate `json:"-"`
	Fault  error               `json:"-"` // why the row cannot be served
}

// Pair is a chain and its private key as PEM. Key may be empty when chain holds
// both.
type Pair struct{ Chain, Key string }

// SetCertificates replaces every certificate of a name by pairs, in one
// transaction: a handshake is served either the old ones or the new. Each pair
// must parse, and key and certificate belong together.
func (d *DB) SetCertificates(ctx context.Context, name string, pairs ...Pair) error {
	name, err := certName(name)
	if err != nil {
		return err
	}
	if len(pairs) == 0 {
		return fmt.Errorf("certificate %s: nothing to store", name)
	}
	for _, p := range pairs {
		if err := p.check(); err != nil {
			return fmt.Errorf("certificate %s: %w", name, err)
		}
	}
	return d.inTx(ctx, func(tx tx) error { return tx.setCertificates(ctx, name, pairs) })
}

func (t tx) setCertificates(ctx context.Context, name string, pairs []Pair) error {
	if _, err := t.exec(ctx, `DELETE FROM certificates WHERE {name} = ?`, name); err != nil {
		return err
	}
	for _, p := range pairs {
		if _, err := t.exec(ctx, `INSERT INTO certificates (name, chain, key) VALUES (?, ?, ?)`, name, p.Chain, orNull(p.Key)); err != nil {
			return explain("certificate "+name, err)
		}
	}
	return nil
}

// SetOwnCertificate replaces every certificate of a name by one of an own
// authority, and adds that to the trust anchors called after the name (without
// "*."), all in one transaction. Other anchors of that name stay; those with the
// same subject, which vouched for certificates before, go.
func (d *DB) SetOwnCertificate(ctx context.Context, name string, p Pair, authority string) error {
	name, err := certName(name)
	if err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	own, err := table.ParseCA(table.Row{authority})
	if err != nil || len(own.Anchors) != 1 {
		return fmt.Errorf("authority of %s: not one certificate: %w", name, err)
	}
	return d.inTx(ctx, func(tx tx) error {
		if err := tx.setCertificates(ctx, name, []Pair{p}); err != nil {
			return err
		}
		return tx.addAnchor(ctx, strings.TrimPrefix(name, "*."), own.Anchors[0])
	})
}

// addAnchor adds a certificate to a bundle of trust anchors.
func (t tx) addAnchor(ctx context.Context, name string, anchor *x509.Certificate) error {
	var old string
	err := t.QueryRowContext(ctx, t.d.text(`SELECT pem FROM authorities WHERE {name} = ?`), name).Scan(&old)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	var bundle strings.Builder
	for rest := []byte(old); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if c, err := x509.ParseCertificate(b.Bytes); err == nil && bytes.Equal(c.RawSubject, anchor.RawSubject) {
			continue
		}
		bundle.Write(pem.EncodeToMemory(b))
	}
	bundle.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: anchor.Raw}))
	_, err = t.exec(ctx, `INSERT INTO authorities (name, pem) VALUES (?, ?)
ON CONFLICT ({name}) DO UPDATE SET pem = excluded.pem`, name, bundle.String())
	return err
}

// check refuses what could not be served. A key in another file is looked at now,
// and again whenever it is served.
func (p Pair) check() error {
	row, err := table.KeyFiles(p.row())
	if err == nil {
		_, err = table.ParseKeyPairs(row)
	}
	return err
}

func (p Pair) row() table.Row {
	if p.Key == "" {
		return table.Row{p.Chain}
	}
	return table.Row{p.Chain, p.Key}
}

func certName(name string) (string, error) {
	name, err := key("certificate", name)
	if err != nil {
		return "", err
	}
	if name == "*" { // the one that serves when no other does
		return name, nil
	}
	if err := address.CheckDomain(strings.TrimPrefix(name, "*.")); err != nil {
		return "", fmt.Errorf("certificate name %q: %w", name, err)
	}
	return name, nil
}

// RemoveCertificates removes every certificate of a name.
func (d *DB) RemoveCertificates(ctx context.Context, name string) error {
	name, err := key("certificate", name)
	if err != nil {
		return err
	}
	return d.change(ctx, "certificate "+name, `DELETE FROM certificates WHERE {name} = ?`, name)
}

// ListCertificates returns every certificate, by name. check, which may be nil, is
// one more opinion on whether a row can be served. Rows that do not parse
// are listed all the same: a list is where a fault is looked for.
func (d *DB) ListCertificates(ctx context.Context, check func(table.Row) error) ([]Certificate, error) {
	return list(ctx, d, `SELECT id, name, chain, coalesce(key, '') FROM certificates ORDER BY name, id`,
		func(scan func(...any) error) (c Certificate, err error) {
			var p Pair
			err = scan(&c.ID, &c.Name, &p.Chain, &p.Key)
			c.read(p, check)
			c.Chain = table.PublicPEM(p.Chain)
			return c, err
		})
}

// read finds the leaves, or the fault, of a row.
func (c *Certificate) read(p Pair, check func(table.Row) error) {
	row, err := table.KeyFiles(p.row())
	var pairs []table.KeyPair
	if err == nil {
		pairs, err = table.ParseKeyPairs(row)
	}
	if err == nil && check != nil {
		err = check(row)
	}
	if c.Fault = err; err != nil {
		return
	}
	for _, pair := range pairs {
		c.Leaves = append(c.Leaves, pair.Leaf)
	}
}

// SetAuthority adds or replaces the trust anchors called name.
func (d *DB) SetAuthority(ctx context.Context, name, pem string) error {
	name, err := key("authority", name)
	if err != nil {
		return err
	}
	if _, err := table.ParseCA(table.Row{pem}); err != nil {
		return fmt.Errorf("authority %s: %w", name, err)
	}
	return d.add(ctx, "authority "+name, `INSERT INTO authorities (name, pem) VALUES (?, ?)
ON CONFLICT ({name}) DO UPDATE SET pem = excluded.pem`, name, pem)
}

// RemoveAuthority removes the trust anchors called name.
func (d *DB) RemoveAuthority(ctx context.Context, name string) error {
	name, err := key("authority", name)
	if err != nil {
		return err
	}
	return d.change(ctx, "authority "+name, `DELETE FROM authorities WHERE {name} = ?`, name)
}

// Authority returns the PEM bundle called name.
func (d *DB) Authority(ctx context.Context, name string) (string, error) {
	var pem string
	err := d.db.QueryRowContext(ctx, d.d.text(`SELECT pem FROM authorities WHERE {name} = ?`), table.Fold(name)).Scan(&pem)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("authority %s: %w", name, ErrNone)
	}
	return pem, err
}

// ListAuthorities returns the names of all trust anchors.
func (d *DB) ListAuthorities(ctx context.Context) ([]string, error) {
	return d.texts(ctx, `SELECT name FROM authorities ORDER BY name`)
}
