package table

import (
	"context"
	"errors"
	"fmt"
)

// Authenticates reports whether the table judges passwords itself (service auth).
// When it does not, its credentials hold hashes to compare with.
func (t *Table) Authenticates(ctx context.Context) (bool, error) {
	a, ok := t.backend.(Authenticator)
	if !ok {
		return false, nil
	}
	ctx, cancel := within(ctx, t.timeout)
	defer cancel()
	yes, err := a.Authenticates(ctx)
	if err != nil {
		return false, fmt.Errorf("table %s: %s: %w", t.name, Auth, err)
	}
	return yes, nil
}

// Authenticate asks whether password is the user's. Unknown users and wrong
// passwords are false; an error is temporary. No password is empty: a directory
// would take that for anonymous (RFC 4513 section 5.1.2).
func (t *Table) Authenticate(ctx context.Context, user, password string) (bool, error) {
	for _, text := range []string{user, password} {
		if _, err := NormalKey(Auth, text); err != nil || text == "" {
			return false, nil
		}
	}
	a, ok := t.backend.(Authenticator)
	if !ok {
		return false, t.fail(Auth, user, ErrUnsupported)
	}
	ctx, cancel := within(ctx, t.timeout)
	defer cancel()
	yes, err := a.Authenticate(ctx, user, password)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, t.fail(Auth, user, err)
	}
	return yes, nil
}
