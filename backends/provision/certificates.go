package provision

import (
	"context"
	"crypto/x509"
	"database/sql"
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
	return d.inTx(ctx, func(tx tx) error {
		if _, err := tx.exec(ctx, `DELETE FROM certificates WHERE {name} = ?`, name); err != nil {
			return err
		}
		for _, p := range pairs {
			if _, err := tx.exec(ctx, `INSERT INTO certificates (name, chain, key) VALUES (?, ?, ?)`, name, p.Chain, orNull(p.Key)); err != nil {
				return explain("certificate "+name, err)
			}
		}
		return nil
	})
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

// ListCertificates returns every certificate, by name. Rows that do not parse
// are listed all the same: a list is where a fault is looked for.
func (d *DB) ListCertificates(ctx context.Context) ([]Certificate, error) {
	return list(ctx, d, `SELECT id, name, chain, coalesce(key, '') FROM certificates ORDER BY name, id`,
		func(scan func(...any) error) (c Certificate, err error) {
			var p Pair
			err = scan(&c.ID, &c.Name, &p.Chain, &p.Key)
			c.read(p)
			c.Chain = table.PublicPEM(p.Chain)
			return c, err
		})
}

// read finds the leaves, or the fault, of a row.
func (c *Certificate) read(p Pair) {
	row, err := table.KeyFiles(p.row())
	var pairs []table.KeyPair
	if err == nil {
		pairs, err = table.ParseKeyPairs(row)
	}
	c.Fault = err
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
