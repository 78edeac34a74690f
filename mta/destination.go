package mta

import (
	"fmt"
	"slices"
	"strings"

	"tabard/lookup"
	"tabard/queue"
)

// destination is everything about a route that a session depends on. Messages
// share sessions when all of it is equal, so that a session never serves a
// message that asks for more than it has.
type destination struct {
	key    string // all of the below
	action string
	domain string // empty when the route leads to the same hosts for every domain
	route  lookup.Route
	helo   string
	name   string  // of the mail's domain
	limits *Limits // that are in force for the message in hand
	own    string  // the domain or relay host that these limits are set for; empty: all

	// What the message in hand wants; sessions are shared without regard to it,
	// as far as they keep that, too.
	tagged  bool // REQUIRETLS
	relaxed bool // TLS-Required: No
}

// destinationOf names the destination of a job whose route was just looked up.
func (m *MTA) destinationOf(action, domain string, route lookup.Route) *destination {
	d := &destination{action: action, domain: domain, route: route, helo: or(route.Helo, m.cfg.Hostname), name: domain}
	d.limits, d.own = m.limits(domain, &route)
	var urls []string
	for _, u := range route.Hosts {
		urls = append(urls, fmt.Sprintf("%s %q %q %s %t", u.Scheme, u.Label, u.Host, u.Port, u.MX))
	}
	if !slices.ContainsFunc(routeURLs(&route), lookup.RelayURL.ByDomain) {
		d.domain = ""
	}
	d.key = fmt.Sprintf("%q %q [%s] %q %q %t %t %t %t %q", action, d.domain, strings.Join(urls, ","),
		d.helo, route.Source, route.TLS, route.NoVerify, route.Present, route.InsecureAuth, route.BackupMX)
	return d
}

// serve names the message that the destination is for now. REQUIRETLS goes before
// the header field (RFC 8689 section 4.1). A message without a sender is not
// thrown away for want of REQUIRETLS (section 5): the next server gets the tag if
// it knows it.
func (d *destination) serve(m *queue.Message) {
	d.tagged = m.RequireTLS && m.Sender != ""
	d.relaxed = m.TLSOptional && !m.RequireTLS
}
