package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// Ping connects, binds, and asks each query once: for the bases, the filters and
// the attributes that it names.
func (t *Table) Ping(ctx context.Context) error {
	c, err := t.search.pool.get(ctx)
	if err != nil {
		return err
	}
	t.schema.look(ctx, c)
	t.search.pool.put(c)
	var all []error
	for _, q := range t.set.queries() {
		all = append(all, t.probe(ctx, q), t.schema.faults(q))
	}
	if a := t.set.auth; a.filter != nil {
		q := &query{name: "auth", filter: a.filter, base: a.base, scope: a.scope}
		all = append(all, t.probe(ctx, q), t.schema.faults(q))
	}
	if g := t.set.groups; g.follows() {
		for _, a := range slices.Concat(g.naming(), g.attrs) {
			if !t.schema.knows(a) {
				all = append(all, fmt.Errorf("alias_deref: %w", errNoAttribute(a)))
			}
		}
	}
	return errors.Join(all...)
}

// probe asks for a key that nobody has.
func (t *Table) probe(ctx context.Context, q *query) error {
	f, _ := q.filter.expand("tabard-check@invalid")
	_, err := t.search.search(ctx, &request{base: q.base, scope: q.scope, filter: f, some: true})
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
		return fmt.Errorf("%s_base: %q does not exist, or nobody shows it to %s", q.name, q.base, t.set.identity())
	}
	if err != nil {
		return fmt.Errorf("%s_filter: %w", q.name, err)
	}
	return nil
}

// identity is who asks.
func (s *settings) identity() string {
	switch {
	case s.external:
		return "the identity of the connection (EXTERNAL)"
	case s.bindDN != "":
		return s.bindDN
	}
	return "anonymous clients"
}
