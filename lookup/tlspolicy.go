package lookup

import (
	"context"
	"errors"
	"fmt"

	"tabard/table"
)

// routePolicies looks up how much TLS the hosts of a route are to have. A relay
// that a URL names has the row of its own name, else that of the destination
// domain; hosts found by MX have that of the domain.
func (s *Service) routePolicies(ctx context.Context, a *action, route *Route, domain string) error {
	if a.tlsPolicy == nil {
		return nil
	}
	byDomain := table.TLSPolicyKeys(domain)
	if len(route.Hosts) == 0 {
		p, err := s.policy(ctx, a.tlsPolicy, byDomain)
		route.Policy = p
		return err
	}
	for i, u := range route.Hosts {
		keys := byDomain
		if !u.ByDomain() {
			// A row of everything comes after what one says of the domain.
			keys = table.TLSPolicyKeys(u.Host)
			keys = append(keys[:len(keys)-1], byDomain...)
		}
		p, err := s.policy(ctx, a.tlsPolicy, keys)
		if err != nil {
			return err
		}
		route.Hosts[i].Policy = p
	}
	return nil
}

// policy returns the first row that there is, nil for none. Mail must not go
// out with less protection because a table cannot be asked: that is an error,
// also where "no row" is only remembered from before.
func (s *Service) policy(ctx context.Context, t *table.Table, keys []string) (*TLSPolicy, error) {
	return sure(ctx, func(*TLSPolicy) bool { return true }, func(ctx context.Context) (*TLSPolicy, error) {
		for _, key := range keys {
			p, err := t.TLSPolicy(ctx, key)
			if errors.Is(err, table.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			return &TLSPolicy{Row: fmt.Sprintf("tls-policy <%s> %q", t.Name(), key), Policy: p}, nil
		}
		return nil, nil
	})
}
