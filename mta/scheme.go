package mta

import (
	"errors"
	"fmt"

	"tabard/lookup"
)

// A policy is the exact meaning of a relay URL's scheme for one delivery: what
// is attempted first, what may follow after which fault, and what a connection
// must be before anything of a message goes over it. It is the only place where
// that is decided: whoever opens connections asks first and next, whoever sends
// asks permits.
type policy struct {
	scheme   lookup.Scheme // never SchemeBackup, which says where to go, not how
	noVerify bool          // `tls no-verify`: encryption alone is enough
}

// opening is one way to begin a session with a server.
type opening uint8

const (
	inClear   opening = iota + 1 // no TLS
	ifOffered                    // STARTTLS when the server offers it, else in clear
	startTLS                     // STARTTLS
	fromStart                    // TLS from the first byte
)

// fault is what went wrong while a session was opened.
type fault uint8

const (
	faultConnect   fault = iota + 1 // no connection
	faultGreeting                   // no greeting, or not a welcome
	faultHello                      // EHLO refused or not answered
	faultNoTLS                      // STARTTLS not offered
	faultRefused                    // STARTTLS not answered with 220
	faultInjected                   // something came between the 220 and the handshake
	faultHandshake                  // the handshake failed
	faultPeer                       // the peer's certificate was not verified, and had to be
	faultAuth                       // authentication impossible or refused
)

// newPolicy applies the options of a route to a scheme.
func newPolicy(scheme lookup.Scheme, route *lookup.Route) (policy, error) {
	p := policy{scheme: scheme, noVerify: route.NoVerify}
	switch scheme {
	case lookup.SchemeTLS, lookup.SchemeSMTPS, lookup.SchemeSSL:
	case lookup.SchemeSMTPTLS:
		if route.TLS {
			p.scheme = lookup.SchemeTLS
		}
	case lookup.SchemeSMTP, lookup.SchemeLMTP:
		if route.TLS {
			return policy{}, fmt.Errorf("TLS required for relaying, but %s:// never encrypts", scheme)
		}
	default:
		return policy{}, fmt.Errorf("unknown relay scheme %q", scheme)
	}
	return p, nil
}

// first says how the first connection to a port begins. On the port that is
// registered for TLS from the first byte, nobody would answer in clear.
func (p policy) first(port string) opening {
	switch p.scheme {
	case lookup.SchemeSMTPTLS:
		return ifOffered
	case lookup.SchemeTLS:
		return startTLS
	case lookup.SchemeSSL:
		if port == "465" {
			return fromStart
		}
		return startTLS
	case lookup.SchemeSMTPS:
		return fromStart
	}
	return inClear
}

// next says whether, and how, the same server may be tried once more on a new
// connection after a fault. Injected data is an attack under way: nothing
// follows it.
func (p policy) next(o opening, f fault) (opening, bool) {
	switch {
	case p.scheme == lookup.SchemeSMTPTLS && o == ifOffered:
		// STARTTLS was offered but did not come about.
		return inClear, f == faultRefused || f == faultHandshake
	case p.scheme == lookup.SchemeSSL && o == startTLS:
		return fromStart, f != faultInjected && f != faultAuth
	}
	return 0, false
}

// verify reports whether the peer's certificate must be verified. It is looked
// at in any case, for the log.
func (p policy) verify() bool { return p.encrypt() && !p.noVerify }

// encrypt reports whether nothing may go in clear.
func (p policy) encrypt() bool {
	switch p.scheme {
	case lookup.SchemeTLS, lookup.SchemeSMTPS, lookup.SchemeSSL:
		return true
	}
	return false
}

// lmtp reports whether the dialogue is LMTP (RFC 2033).
func (p policy) lmtp() bool { return p.scheme == lookup.SchemeLMTP }

// channel is what a connection turned out to be.
type channel struct {
	encrypted bool
	verdict   lookup.Verdict
}

// trusted reports whether passwords may go over the channel.
func (c channel) trusted() bool { return c.encrypted && c.verdict.State == lookup.Verified }

var errNotPermitted = errors.New("the connection does not keep what the route promises")

// permits is the last word before a message is sent, also over a connection
// that was opened for an earlier one.
func (p policy) permits(c channel) error {
	if p.encrypt() && !c.encrypted || p.verify() && !c.trusted() {
		return errNotPermitted
	}
	return nil
}
