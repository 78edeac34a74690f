package mta

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tabard/internal/address"
	"tabard/internal/dns"
)

// literal reads a domain that is an address (RFC 5321 section 4.1.3).
func (m *MTA) literal(domain string) (string, *failure) {
	text := strings.TrimSuffix(domain[1:], "]")
	if len(text) > 5 && strings.EqualFold(text[:5], "ipv6:") {
		text = text[5:]
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return "", failed("5.1.2", "bad address literal "+domain)
	}
	if m.own(ip) {
		return "", loops(domain)
	}
	return ip.Unmap().String(), nil
}

func loops(domain string) *failure {
	return failed("5.4.6", "mail for "+domain+" loops back to myself")
}

// mxs lists all the hosts that take a domain's mail, best first.
func (m *MTA) mxs(ctx context.Context, domain string) ([]dns.MX, *failure) {
	list, err := m.cfg.Resolver.MX(ctx, domain)
	switch {
	case errors.Is(err, dns.ErrNullMX):
		return nil, failed("5.1.10", "domain "+domain+" does not accept mail")
	case errors.Is(err, dns.ErrNXDomain):
		return nil, failed("5.1.2", "domain "+domain+" does not exist")
	case err != nil:
		return nil, deferred("4.4.3", "temporary failure in MX lookup: "+err.Error())
	}
	return list, nil
}

// exchangers lists the hosts that take a domain's mail and are better than
// ourselves, if we are one of them (RFC 5321 section 5.1).
func (m *MTA) exchangers(ctx context.Context, domain, helo string) ([]dns.MX, *failure) {
	list, fail := m.mxs(ctx, domain)
	if fail != nil {
		return nil, fail
	}
	better, _ := m.dropOwn(ctx, list, helo)
	if len(better) == 0 {
		return nil, loops(domain)
	}
	return better, nil
}

// backups lists the MXs of a domain that are better than the one called name,
// which we are. Where none is known to be, the mail waits: that is what a backup
// is for, and DNS may be on its way to say otherwise. To take every MX when the
// name is not among them, as OpenSMTPD does, would let two backups that both
// misspell their names hand mail to each other for ever.
func (m *MTA) backups(ctx context.Context, domain, name, helo string) ([]dns.MX, *failure) {
	list, fail := m.mxs(ctx, domain)
	if fail != nil {
		return nil, fail
	}
	better, among := m.dropOwn(ctx, list, helo, name)
	switch {
	case !among:
		return nil, deferred("4.3.5", "backup MX "+name+" is not among the MXs of "+domain)
	case len(better) == 0:
		return nil, deferred("4.3.5", "no MX of "+domain+" is better than the backup MX "+name)
	}
	return better, nil
}

// ownCheck bounds how long DNS may delay the search for ourselves.
const ownCheck = 10 * time.Second

// dropOwn cuts the list, which is sorted, where the preference is no better than
// our own: that of the server's name, of one of the names given, or of a host
// with one of our addresses. It reports whether we are among them.
func (m *MTA) dropOwn(ctx context.Context, list []dns.MX, names ...string) (better []dns.MX, among bool) {
	ctx, cancel := context.WithTimeout(ctx, ownCheck)
	defer cancel()
	names = append(names, m.cfg.Hostname)
	for i := range names {
		names[i] = address.Labels(names[i]) // as in an MX
	}
	mine := make([]bool, len(list))
	var wg sync.WaitGroup
	for i, mx := range list {
		mine[i] = slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(mx.Host, name) })
		if mine[i] || i >= 2*m.cfg.Limits.Hosts {
			continue
		}
		wg.Go(func() {
			addrs, err := m.cfg.Resolver.Addrs(ctx, mx.Host)
			mine[i] = err == nil && slices.ContainsFunc(addrs, m.own)
		})
	}
	wg.Wait()
	first := slices.Index(mine, true)
	if first < 0 {
		return list, false
	}
	cut := slices.IndexFunc(list, func(mx dns.MX) bool { return mx.Pref >= list[first].Pref })
	return list[:cut], true
}

// own reports whether an address is this machine's, whoever says so in DNS: one
// of its interfaces', a loopback address, or the unspecified one, which leads to
// it as well.
func (m *MTA) own(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsLoopback() || ip.IsUnspecified() || slices.Contains(m.cfg.Addresses, ip)
}
