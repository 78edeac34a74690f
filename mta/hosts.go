package mta

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"tabard/internal/dns"
	"tabard/lookup"
	"tabard/queue"
)

// host is one server to try.
type host struct {
	scheme   lookup.Scheme // of its URL; that of backup:// is smtp+tls
	policy   policy        // for the message in hand
	url      int           // which of routeURLs it is from
	nexthop  string        // the domain or host that was asked for, of which this is a server
	name     string        // host name, IP address or path of a socket; what its certificate must be for
	port     string
	label    string   // credentials to log in with; empty: none
	mx       bool     // found by MX, not named by a relay URL
	pref     uint16   // of the MX
	implicit bool     // by MX, and it is the mail's domain itself
	proven   bool     // by MX, and DNSSEC vouches for the answer
	hasty    []string // addresses not to wait for as long as for others
}

func (h *host) socket() bool { return strings.HasPrefix(h.name, "/") }

// routeURLs returns what a route leads to: its URLs, or what stands for the MXs
// of the mail's domain, or for those better than ourselves.
func routeURLs(route *lookup.Route) []lookup.RelayURL {
	switch {
	case route.BackupMX != "":
		return []lookup.RelayURL{{Scheme: lookup.SchemeBackup, Host: route.BackupMX, Policy: route.Policy}}
	case len(route.Hosts) > 0:
		return route.Hosts
	}
	return []lookup.RelayURL{{Scheme: lookup.SchemeSMTPTLS, MX: true, Policy: route.Policy}}
}

// hosts lists the servers that a route leads to, best first. A URL that cannot be
// used is passed over while there are others. If none can, the mail waits as
// long as one of them may come to be of use.
func (m *MTA) hosts(ctx context.Context, d *destination) ([]*host, *failure) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	var all []*host
	var fail *failure
	for i, u := range routeURLs(&d.route) {
		hosts, f := m.urlHosts(ctx, d, u)
		for _, h := range hosts {
			h.url = i
		}
		all = append(all, hosts...)
		switch {
		case f == nil:
		case fail == nil, fail.outcome == queue.Failed:
			fail = f
		case f.outcome != queue.Failed:
			fail = fail.or(f)
		}
	}
	if len(all) == 0 {
		return nil, fail
	}
	return all, nil
}

// urlHosts lists the servers that one URL leads to.
func (m *MTA) urlHosts(ctx context.Context, d *destination, u lookup.RelayURL) ([]*host, *failure) {
	backup := u.Scheme == lookup.SchemeBackup
	scheme := u.Scheme
	if backup {
		scheme = lookup.SchemeSMTPTLS
	}
	switch {
	case backup:
		list, fail := m.backups(ctx, d.domain, u.Host, d.helo)
		return m.mxHosts(list, scheme, d.domain, "", m.cfg.SMTPPort), fail
	case !u.MX:
		return []*host{{scheme: scheme, nexthop: u.Host, name: u.Host, port: u.Port, label: u.Label}}, nil
	case u.Host != "":
		list, fail := m.exchangers(ctx, u.Host, d.helo)
		return m.mxHosts(list, scheme, u.Host, "", u.Port), waits(fail)
	}
	port := or(u.Port, m.cfg.SMTPPort)
	if strings.HasPrefix(d.domain, "[") {
		name, fail := m.literal(d.domain)
		if fail != nil {
			return nil, fail
		}
		return []*host{{scheme: scheme, nexthop: d.domain, name: name, port: port, mx: true}}, nil
	}
	list, fail := m.exchangers(ctx, d.domain, d.helo)
	return m.mxHosts(list, scheme, d.domain, d.domain, port), fail
}

// mxHosts makes hosts of MXs of nexthop; domain is that of the mail, or empty for
// those of a relay.
func (m *MTA) mxHosts(list []dns.MX, scheme lookup.Scheme, nexthop, domain, port string) []*host {
	hosts := make([]*host, len(list))
	for i, mx := range list {
		hosts[i] = &host{scheme: scheme, nexthop: nexthop, name: mx.Host, port: port, mx: true, pref: mx.Pref, implicit: mx.Host == domain, proven: mx.Proven}
	}
	return hosts
}

// waits makes what is wrong with a relay's domain temporary: that is not the
// fault of the mail.
func waits(f *failure) *failure {
	if f != nil && f.outcome == queue.Failed {
		return deferred("4.4.4", "relay host: "+f.text)
	}
	return f
}

// addresses returns where to connect for a host: IP addresses of the families that
// there are sources of, if any is set, and that `mta limit` allows, or the path of
// a socket.
func (m *MTA) addresses(ctx context.Context, h *host, d *destination) ([]string, *failure) {
	if h.socket() {
		return []string{h.name}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeouts.Lookup)
	defer cancel()
	found, err := m.cfg.Resolver.Addrs(ctx, h.name)
	if err != nil {
		return nil, m.unresolved(h, err)
	}
	ips := slices.DeleteFunc(slices.Clone(found), func(ip netip.Addr) bool { return h.mx && (m.own(ip) || ip.IsMulticast()) })
	if len(ips) == 0 {
		return nil, deferred("4.4.4", "host "+h.name+" has no address that is not our own")
	}
	if from, err := netip.ParseAddr(d.route.Source); err == nil && d.other.Address == "" {
		ips = slices.DeleteFunc(ips, func(ip netip.Addr) bool { return familyIndex(from) != familyIndex(ip) })
	}
	if len(ips) == 0 {
		return nil, deferred("4.4.1", "address family mismatch on destination "+h.name)
	}
	ips = limitFamilies(ips, m.cfg.Limits.Addresses)
	hasty := m.families.order(ips)
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = ip.String()
	}
	allowed := d.limits.Family.only(slices.Clone(out))
	switch {
	case len(allowed) == 0:
		return nil, deferred("4.4.1", "address family mismatch on destination "+h.name)
	case len(allowed) == len(out):
		h.hasty = out[:hasty]
	}
	return allowed, nil
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
