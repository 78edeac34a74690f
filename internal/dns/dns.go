// Package dns resolves the names that mail needs: mail exchangers, addresses
// and reverse names, over plain DNS (RFC 1035) to the servers it is given.
//
// What a server answers may be hostile: an answer counts only when it belongs
// to the question, and names in it only when they are host names.
package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// The outcomes of a question beside an answer, for errors.Is. Everything that
// is none of the first three is temporary.
var (
	ErrNXDomain  = errors.New("domain does not exist")
	ErrNoData    = errors.New("no such record")
	ErrNullMX    = errors.New("domain does not accept mail") // RFC 7505
	ErrTemporary = errors.New("temporary DNS failure")
)

// MX is one mail exchanger of a domain.
type MX struct {
	Host string // A-labels, lower case, no trailing dot
	Pref uint16 // lower is better
	// Proven: a resolver on this host vouches, by DNSSEC, for all that led here.
	Proven bool
}

// MX returns the hosts that take mail for a domain (RFC 5321 section 5.1): best
// first, shuffled within a preference, and the domain itself when it has no MX
// record. Whether a host has an address is not looked at. Errors are
// ErrNXDomain, ErrNullMX or ErrTemporary.
func (r *Resolver) MX(ctx context.Context, domain string) ([]MX, error) {
	name, err := cleanName(domain)
	if err != nil {
		return nil, fmt.Errorf("MX of %q: %w: %v", domain, ErrNXDomain, err)
	}
	if _, local := r.hosts.addrs(name); local {
		trace(ctx, func() Asked {
			return Asked{Question: "MX of " + name, Answers: []string{"0 " + name + "."}, Hosts: true}
		})
		return []MX{{Host: name}}, nil
	}
	ans, err := r.ask(ctx, question{name, mdns.TypeMX})
	if errors.Is(err, ErrNoData) {
		return []MX{{Host: name}}, nil
	}
	if err != nil {
		return nil, err
	}
	return exchangers(name, ans)
}

// exchangers orders the records of an answer and drops those that name no host.
func exchangers(name string, ans *answer) ([]MX, error) {
	list := make([]MX, 0, len(ans.mx))
	null := false
	for _, mx := range ans.mx {
		// A domain that is not to get mail says "." (RFC 7505), or in practice
		// "localhost", which would make us talk to ourselves.
		if mx.Host == "" || mx.Host == "localhost" {
			null = true
			continue
		}
		list = append(list, mx)
	}
	if len(list) == 0 && null && !ans.dropped {
		return nil, fmt.Errorf("MX of %s: %w", name, ErrNullMX)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("MX of %s: %w: no record names a host", name, ErrTemporary)
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b MX) int { return int(a.Pref) - int(b.Pref) })
	return list, nil
}

// Addrs returns the addresses of a host, IPv4 and IPv6 in turn beginning with
// IPv4, each family in random order. An IP address is its own answer. Errors
// are ErrNXDomain, ErrNoData or ErrTemporary; a family that fails while the
// other has addresses is no error.
func (r *Resolver) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	name, err := cleanName(host)
	if err != nil {
		return nil, fmt.Errorf("address of %q: %w: %v", host, ErrNXDomain, err)
	}
	if addrs, ok := r.hosts.addrs(name); ok {
		trace(ctx, func() Asked {
			a := Asked{Question: "addresses of " + name, Hosts: true}
			for _, ip := range addrs {
				a.Answers = append(a.Answers, ip.String())
			}
			return a
		})
		return slices.Clone(addrs), nil
	}
	var v4, v6 []netip.Addr
	var err4, err6 error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v6, err6 = r.family(ctx, name, mdns.TypeAAAA)
	}()
	v4, err4 = r.family(ctx, name, mdns.TypeA)
	<-done
	if len(v4)+len(v6) > 0 {
		return interleave(v4, v6), nil
	}
	return nil, worse(err4, err6)
}

func (r *Resolver) family(ctx context.Context, name string, qtype uint16) ([]netip.Addr, error) {
	ans, err := r.ask(ctx, question{name, qtype})
	if err != nil {
		return nil, err
	}
	addrs := slices.Clone(ans.addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs, nil
}

func interleave(a, b []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(a)+len(b))
	for i := 0; i < max(len(a), len(b)); i++ {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}

// worse chooses the error that says less for certain: a temporary one, then "no
// data", then "does not exist".
func worse(a, b error) error {
	rank := func(err error) int {
		switch {
		case errors.Is(err, ErrNXDomain):
			return 0
		case errors.Is(err, ErrNoData):
			return 1
		}
		return 2
	}
	if rank(a) >= rank(b) {
		return a
	}
	return b
}

// PTR returns the names that reverse DNS gives an address, unconfirmed.
func (r *Resolver) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	ip = ip.Unmap().WithZone("")
	if names, ok := r.hosts.names(ip); ok {
		return slices.Clone(names), nil
	}
	arpa, err := mdns.ReverseAddr(ip.String())
	if err != nil {
		return nil, fmt.Errorf("PTR of %s: %w", ip, ErrNXDomain)
	}
	ans, err := r.ask(ctx, question{strings.TrimSuffix(arpa, "."), mdns.TypePTR})
	if err != nil {
		return nil, err
	}
	return slices.Clone(ans.names), nil
}
