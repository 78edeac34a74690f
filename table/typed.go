package table

import (
	"context"
	"fmt"
	"net/netip"
)

// ask looks a key up and parses the row; what does not parse is a temporary
// error that says what was asked.
func ask[T any](ctx context.Context, t *Table, s Service, key string, parse func(Row) (T, error)) (T, error) {
	var zero T
	row, err := t.Lookup(ctx, s, key)
	if err != nil {
		return zero, err
	}
	v, err := parse(row)
	if err != nil {
		return zero, t.fail(s, key, err)
	}
	return v, nil
}

// Aliases returns the expansion of a key, ErrNotFound, or a temporary error.
func (t *Table) Aliases(ctx context.Context, key string) ([]Node, error) {
	return ask(ctx, t, Alias, key, ParseNodes)
}

// Credentials returns the credentials of a user or label, ErrNotFound, or a
// temporary error.
func (t *Table) Credentials(ctx context.Context, key string) (Login, error) {
	return ask(ctx, t, Credentials, key, func(r Row) (Login, error) { return ParseCredentials(key, r) })
}

// UserInfo returns the system account of a user, ErrNotFound, or a temporary
// error.
func (t *Table) UserInfo(ctx context.Context, user string) (Account, error) {
	return ask(ctx, t, UserInfo, user, ParseUserInfo)
}

// AddrName returns the host name for an address, ErrNotFound, or a temporary
// error.
func (t *Table) AddrName(ctx context.Context, a netip.Addr) (string, error) {
	return ask(ctx, t, AddrName, AddrKey(a), ParseAddrName)
}

// MailAddrMap returns the addresses that a user may send as, ErrNotFound, or a
// temporary error.
func (t *Table) MailAddrMap(ctx context.Context, user string) ([]MailPattern, error) {
	return ask(ctx, t, MailAddrMap, user, ParseMailAddrs)
}

// RelayHosts returns the relay URLs for a key in the table's order, ErrNotFound,
// or a temporary error.
func (t *Table) RelayHosts(ctx context.Context, key string) ([]Relay, error) {
	return ask(ctx, t, RelayHost, key, ParseRelayHosts)
}

// KeyPairs returns the certificates for a server name, ErrNotFound, or a
// temporary error.
func (t *Table) KeyPairs(ctx context.Context, name string) ([]KeyPair, error) {
	return ask(ctx, t, Cert, name, ParseKeyPairs)
}

// Authorities returns the trust anchors called name and their revocation lists,
// ErrNotFound, or a temporary error.
func (t *Table) Authorities(ctx context.Context, name string) (Authorities, error) {
	return ask(ctx, t, CA, name, ParseCA)
}

// CheckMailAddr asks whether an envelope address is in the table; the empty one
// is the null reverse-path.
func (t *Table) CheckMailAddr(ctx context.Context, addr string) (bool, error) {
	return t.Check(ctx, MailAddr, MailAddrKey(addr))
}

// CheckNetAddr asks whether an address is in the table.
func (t *Table) CheckNetAddr(ctx context.Context, a netip.Addr) (bool, error) {
	return t.Check(ctx, NetAddr, AddrKey(a))
}

// FetchRelayHosts returns the relay URLs of a list, in the table's order.
func (t *Table) FetchRelayHosts(ctx context.Context) ([]Relay, error) {
	return fetch(ctx, t, RelayHost, ParseRelayHosts)
}

// FetchSources returns the source addresses of a list, in the table's order.
func (t *Table) FetchSources(ctx context.Context) ([]netip.Addr, error) {
	return fetch(ctx, t, Source, ParseSource)
}

func fetch[T any](ctx context.Context, t *Table, s Service, parse func(Row) ([]T, error)) ([]T, error) {
	rows, err := t.Fetch(ctx, s)
	if err != nil {
		return nil, err
	}
	var all []T
	for _, r := range rows {
		v, err := parse(r)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", t.name, err)
		}
		all = append(all, v...)
	}
	return all, nil
}

// First tries keys in order and returns the first that has an answer, with the
// key that had it. An error other than ErrNotFound ends the walk: what comes
// later must not hide it.
func (t *Table) First(ctx context.Context, s Service, keys []string) (string, Row, error) {
	for _, k := range keys {
		row, err := t.Lookup(ctx, s, k)
		if err == nil {
			return k, row, nil
		}
		if !isNotFound(err) {
			return k, nil, err
		}
	}
	return "", nil, ErrNotFound
}
