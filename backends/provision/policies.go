package provision

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"tabard/internal/address"
	"tabard/table"
)

// PolicyRow is a row of tls_policies: how much TLS mail to a domain, or to a relay,
// has to have.
type PolicyRow struct {
	Domain string `json:"domain"` // destination domain or relay's host, *.parent, .parent or *
	Policy string `json:"policy"`
}

// normal returns the row as it is stored.
func (r PolicyRow) normal() (PolicyRow, error) {
	domain, err := policyDomain(r.Domain)
	if err != nil {
		return r, err
	}
	r.Policy = strings.Join(strings.Fields(r.Policy), " ")
	if _, err := table.ParseTLSPolicy(table.Row{r.Policy}); err != nil {
		return r, fmt.Errorf("tls-policy %s: %w", domain, err)
	}
	return PolicyRow{domain, r.Policy}, nil
}

// policyDomain checks a key of service tlspolicy.
func policyDomain(domain string) (string, error) {
	domain, err := key("tls-policy", domain)
	if err != nil || domain == "*" || strings.HasPrefix(domain, "[") {
		return domain, err
	}
	if _, err := netip.ParseAddr(domain); err == nil {
		return domain, nil
	}
	if err := address.CheckDomain(strings.TrimPrefix(strings.TrimPrefix(domain, "*"), ".")); err != nil {
		return "", fmt.Errorf("tls-policy %q: %w", domain, err)
	}
	return domain, nil
}

// SetPolicy adds or replaces the policy of a domain.
func (d *DB) SetPolicy(ctx context.Context, r PolicyRow) error {
	r, err := r.normal()
	if err != nil {
		return err
	}
	return d.add(ctx, "tls-policy "+r.Domain, `INSERT INTO tls_policies (domain, policy) VALUES (?, ?)
ON CONFLICT ({domain}) DO UPDATE SET policy = excluded.policy`, r.Domain, r.Policy)
}

// RemovePolicy removes the policy of a domain.
func (d *DB) RemovePolicy(ctx context.Context, domain string) error {
	domain, err := key("tls-policy", domain)
	if err != nil {
		return err
	}
	return d.change(ctx, "tls-policy "+domain, `DELETE FROM tls_policies WHERE {domain} = ?`, domain)
}

// ListPolicies returns every policy, by domain.
func (d *DB) ListPolicies(ctx context.Context) ([]PolicyRow, error) {
	return list(ctx, d, `SELECT domain, policy FROM tls_policies ORDER BY domain`,
		func(scan func(...any) error) (r PolicyRow, err error) {
			err = scan(&r.Domain, &r.Policy)
			return r, err
		})
}
