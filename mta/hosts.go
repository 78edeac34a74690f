package mta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tabard/internal/dns"
	"tabard/lookup"
)

// host is one server to try.
type host struct {
	policy   policy
	name     string // host name, IP address or path of a socket; what its certificate must be for
	port     string
	label    string // credentials to log in with; empty: none
	mx       bool   // found by MX, not named by a relay URL
	implicit bool   // by MX, and it is the domain itself
}

func (h *host) socket() bool { return strings.HasPrefix(h.name, "/") }

// hosts lists the servers that a route leads to, best first.
func (m *MTA) hosts(ctx context.Context, route *lookup.Route, domain string) ([]*host, *failure) {
	switch {
	case route.BackupMX != "":
		return nil, deferred("4.3.5", "relaying as a backup MX is not supported yet")
	case len(route.Hosts) > 0:
		return relayHosts(route)
	}
	p, err := newPolicy(lookup.SchemeSMTPTLS, route)
	if err != nil {
		return nil, deferred("4.3.5", err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	var names []string
	var fail *failure
	if strings.HasPrefix(domain, "[") {
		names, fail = m.literal(domain)
	} else {
		names, fail = m.exchangers(ctx, domain, route.Helo)
	}
	hosts := make([]*host, len(names))
	for i, name := range names {
		hosts[i] = &host{policy: p, name: name, port: m.cfg.SMTPPort, mx: true, implicit: name == domain}
	}
	return hosts, fail
}

// relayHosts takes the URLs of a route. One that cannot be used is passed over
// while there are others.
func relayHosts(route *lookup.Route) ([]*host, *failure) {
	var hosts []*host
	var fail *failure
	for _, u := range route.Hosts {
		p, err := newPolicy(u.Scheme, route)
		if err != nil {
			fail = deferred("4.3.5", fmt.Sprintf("relay host %s: %v", u.Host, err))
			continue
		}
		hosts = append(hosts, &host{policy: p, name: u.Host, port: u.Port, label: u.Label})
	}
	if len(hosts) == 0 {
		return nil, fail
	}
	return hosts, nil
}

// literal reads a domain that is an address (RFC 5321 section 4.1.3).
func (m *MTA) literal(domain string) ([]string, *failure) {
	text := strings.TrimSuffix(domain[1:], "]")
	if len(text) > 5 && strings.EqualFold(text[:5], "ipv6:") {
		text = text[5:]
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return nil, failed("5.1.2", "bad address literal "+domain)
	}
	if m.own(ip) {
		return nil, failed("5.4.6", "mail for "+domain+" loops back to this server")
	}
	return []string{ip.Unmap().String()}, nil
}

// exchangers lists the hosts that take a domain's mail and are better than
// ourselves (RFC 5321 section 5.1).
func (m *MTA) exchangers(ctx context.Context, domain, helo string) ([]string, *failure) {
	list, err := m.cfg.Resolver.MX(ctx, domain)
	switch {
	case errors.Is(err, dns.ErrNullMX):
		return nil, failed("5.1.10", "domain "+domain+" does not accept mail")
	case errors.Is(err, dns.ErrNXDomain):
		return nil, failed("5.1.2", "domain "+domain+" does not exist")
	case err != nil:
		return nil, deferred("4.4.3", "temporary failure in MX lookup: "+err.Error())
	}
	better := m.dropOwn(ctx, list, helo)
	if len(better) == 0 {
		return nil, failed("5.4.6", "mail for "+domain+" loops back to this server")
	}
	names := make([]string, len(better))
	for i, mx := range better {
		names[i] = mx.Host
	}
	return names, nil
}

// ownCheck bounds how long DNS may delay the search for ourselves.
const ownCheck = 10 * time.Second

// dropOwn cuts the list, which is sorted, where the preference is no better
// than our own.
func (m *MTA) dropOwn(ctx context.Context, list []dns.MX, helo string) []dns.MX {
	ctx, cancel := context.WithTimeout(ctx, ownCheck)
	defer cancel()
	mine := make([]bool, len(list))
	var wg sync.WaitGroup
	for i, mx := range list[:min(len(list), 2*m.cfg.Limits.Hosts)] {
		if mine[i] = strings.EqualFold(mx.Host, m.cfg.Hostname) || strings.EqualFold(mx.Host, helo); mine[i] || len(m.cfg.Addresses) == 0 {
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
		return list
	}
	cut := slices.IndexFunc(list, func(mx dns.MX) bool { return mx.Pref >= list[first].Pref })
	return list[:cut]
}

func (m *MTA) own(ip netip.Addr) bool { return slices.Contains(m.cfg.Addresses, ip.Unmap()) }

// addresses returns where to connect for a host: IP addresses of the family of
// the source, if one is set, or the path of a socket.
func (m *MTA) addresses(ctx context.Context, h *host, source string) ([]string, *failure) {
	if h.socket() {
		return []string{h.name}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	ips, err := m.cfg.Resolver.Addrs(ctx, h.name)
	if err != nil {
		return nil, m.unresolved(h, err)
	}
	from, sourceErr := netip.ParseAddr(source)
	var out []string
	for _, ip := range ips {
		switch {
		case sourceErr == nil && from.Unmap().Is4() != ip.Is4():
		case h.mx && m.own(ip):
		default:
			out = append(out, ip.String())
		}
	}
	if len(out) == 0 {
		return nil, deferred("4.4.1", "address family mismatch on destination "+h.name)
	}
	return out[:min(len(out), m.cfg.Limits.Addresses)], nil
}

// unresolved says what it means that a host has no address. Only of a domain
// that has no MX either is that final.
func (m *MTA) unresolved(h *host, err error) *failure {
	switch {
	case !errors.Is(err, dns.ErrNXDomain) && !errors.Is(err, dns.ErrNoData):
		return deferred("4.4.3", "temporary failure in address lookup: "+err.Error())
	case h.mx && h.implicit:
		return failed("5.4.4", "domain "+h.name+" has no mail host")
	}
	return deferred("4.4.4", "host "+h.name+" not found")
}

// at returns the address to dial for one way of opening.
func (m *MTA) at(h *host, addr string, o opening) (network, address string) {
	if h.socket() {
		return "unix", addr
	}
	port := h.port
	if h.policy.scheme == lookup.SchemeSSL && o == fromStart && o != h.policy.first(port) {
		port = m.cfg.SMTPSPort
	}
	return "tcp", net.JoinHostPort(addr, port)
}
