package mta

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tabard/lookup"
	"tabard/queue"
)

// destination is everything about a route that a session depends on. Messages
// share sessions when all of it is equal, so that a session never serves a
// message that asks for more than it has.
type destination struct {
	key    string   // all of the below
	rest   string   // of it, all but the domain
	pool   string   // rest and the lane: sessions are kept under it (see share.go)
	urls   []string // what the route leads to, in the order of this message's turn
	action string
	domain string // empty when the route leads to the same hosts for every domain
	route  lookup.Route
	helo   string
	name   string             // of the mail's domain
	limits *Limits            // that are in force for the message in hand
	own    string             // the domain or relay host that these limits are set for; empty: all
	other  lookup.RouteSource // to send from where addresses are not of route.Source's family, if there is one

	// What the message in hand wants; sessions are shared without regard to it,
	// as far as they keep that, too.
	tagged  bool // REQUIRETLS
	relaxed bool // TLS-Required: No
	urged   bool // servers that failed lately are tried, too

	spent queue.Times // on the job in hand
}

// destinationOf names the destination of a job whose route was just looked up.
func (m *MTA) destinationOf(action, domain string, route lookup.Route) *destination {
	d := &destination{action: action, domain: domain, route: route, helo: or(route.Helo, m.cfg.Hostname), name: domain}
	d.limits, d.own = m.limits(domain, &route)
	for _, u := range routeURLs(&route) {
		d.urls = append(d.urls, fmt.Sprintf("%s %q %q %s %t", u.Scheme, u.Label, u.Host, u.Port, u.MX))
	}
	if !slices.ContainsFunc(routeURLs(&route), lookup.RelayURL.ByDomain) {
		d.domain = ""
	}
	d.other = otherSource(&route)
	d.rest = fmt.Sprintf("%q [%s] %q %q %q %t %t %t %t %q %q", action, strings.Join(slices.Sorted(slices.Values(d.urls)), ","),
		d.helo, route.Source, d.other, route.TLS, route.NoVerify, route.Present, route.InsecureAuth, route.BackupMX, d.own)
	d.key = d.domain + " " + d.rest
	return d
}

// otherSource returns the first source of a route that is not of the family of the
// one whose turn it is.
func otherSource(route *lookup.Route) lookup.RouteSource {
	for _, s := range route.Sources {
		if !sameFamily(s.Address, route.Source) {
			return s
		}
	}
	return lookup.RouteSource{}
}

// sameFamily reports whether two texts are both IPv4 or both IPv6 addresses.
func sameFamily(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && familyIndex(x) == familyIndex(y)
}

// toward returns the destination as it is served at an address: from a source of
// that family, by the name that goes with it.
func (d *destination) toward(addr string) *destination {
	if !sameFamily(addr, d.other.Address) {
		return d
	}
	turned := *d
	turned.route.Source, turned.helo = d.other.Address, or(d.other.Helo, d.helo)
	return &turned
}

// serve names the message that the destination is for now. REQUIRETLS goes before
// the header field (RFC 8689 section 4.1). A message without a sender is not
// thrown away for want of REQUIRETLS (section 5): the next server gets the tag if
// it knows it.
func (d *destination) serve(m *queue.Message) {
	d.tagged = m.RequireTLS && m.Sender != ""
	d.relaxed = m.TLSOptional && !m.RequireTLS
}
