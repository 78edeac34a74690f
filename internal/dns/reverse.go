package dns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
)

// maxConfirm bounds how many reverse names of one address are looked up again.
const maxConfirm = 10

// Reverse names the peer at ip. fcrdns is "pass" when name resolves back to ip,
// "fail" when it does not or there is none, "error" when DNS could not tell.
// Without a name, name is "<unknown>".
func (r *Resolver) Reverse(ctx context.Context, ip netip.Addr) (name, fcrdns string) {
	ip = ip.Unmap().WithZone("")
	names, err := r.PTR(ctx, ip)
	if err != nil || len(names) == 0 {
		if err == nil || errors.Is(err, ErrNXDomain) || errors.Is(err, ErrNoData) {
			return "<unknown>", "fail"
		}
		return "<unknown>", "error"
	}
	fcrdns = "fail"
	for _, candidate := range names[:min(len(names), maxConfirm)] {
		switch confirmed, err := r.confirm(ctx, candidate, ip); {
		case confirmed:
			return candidate, "pass"
		case err != nil:
			fcrdns = "error"
		}
	}
	return names[0], fcrdns
}

// confirm reports whether name has the address ip; an error means that DNS
// could not tell.
func (r *Resolver) confirm(ctx context.Context, name string, ip netip.Addr) (bool, error) {
	addrs, err := r.Addrs(ctx, name)
	if errors.Is(err, ErrNXDomain) || errors.Is(err, ErrNoData) {
		return false, nil
	}
	return slices.Contains(addrs, ip), err
}
