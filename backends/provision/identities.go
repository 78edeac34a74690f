package provision

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"tabard/table"
)

// IdentityRow is a row of client_identities: whoever presents a verified client
// certificate with this identity is the user.
type IdentityRow struct {
	Identity string `json:"identity"` // sha256:HEX, email:ADDRESS, dns:NAME or dn:SUBJECT
	User     string `json:"user"`
}

// normal returns the row as it is stored.
func (r IdentityRow) normal() (IdentityRow, error) {
	text := strings.TrimSpace(r.Identity)
	kind, value, _ := strings.Cut(text, ":")
	kind, value = strings.ToLower(kind), strings.TrimSpace(value)
	if !slices.Contains([]string{"sha256", "email", "dns", "dn"}, kind) || value == "" {
		return r, fmt.Errorf("identity %q: want sha256:HEX, email:ADDRESS, dns:NAME or dn:SUBJECT", text)
	}
	if kind == "sha256" {
		value = strings.ReplaceAll(value, ":", "") // as openssl prints it
		if sum, err := hex.DecodeString(value); err != nil || len(sum) != 32 {
			return r, fmt.Errorf("identity %q: not the 64 hexadecimal digits of a SHA-256", text)
		}
	}
	id, err := table.NormalKey(table.CertAuth, kind+":"+value)
	if err != nil {
		return r, fmt.Errorf("identity %q: %w", text, err)
	}
	user, err := key("user", r.User)
	return IdentityRow{id, user}, err
}

// AddIdentity lets a client certificate log in as a user.
func (d *DB) AddIdentity(ctx context.Context, r IdentityRow) error {
	r, err := r.normal()
	if err != nil {
		return err
	}
	return d.add(ctx, "identity "+r.Identity, `INSERT INTO client_identities (identity, "user") VALUES (?, ?)`, r.Identity, r.User)
}

// RemoveIdentity takes a client certificate's login away; sessions that have it
// lose their next transaction.
func (d *DB) RemoveIdentity(ctx context.Context, identity string) error {
	r, err := IdentityRow{identity, "anybody"}.normal()
	if err != nil {
		return err
	}
	return d.change(ctx, "identity "+r.Identity, `DELETE FROM client_identities WHERE {identity} = ?`, r.Identity)
}

// ListIdentities returns every identity, by user.
func (d *DB) ListIdentities(ctx context.Context) ([]IdentityRow, error) {
	return list(ctx, d, `SELECT identity, "user" FROM client_identities ORDER BY "user", identity`,
		func(scan func(...any) error) (r IdentityRow, err error) {
			err = scan(&r.Identity, &r.User)
			return r, err
		})
}
