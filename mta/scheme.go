package mta

import "tabard/lookup"

// A policy says what is attempted with one host for one message, what may follow
// after which fault, and what a connection must be before anything of a message
// goes over it. It is the only place where that is decided: whoever opens
// connections asks first and next, whoever sends asks permits. Its scheme is the
// relay URL's after everybody was heard who has a say (see party).
type policy struct {
	scheme lookup.Scheme // never SchemeBackup
	demand
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
	faultPeer                       // the peer's certificate is not what it had to be
	faultUnchecked                  // it could not be judged, and had to be
	faultUntagged                   // REQUIRETLS not offered, and the message has it
	faultAuth                       // authentication impossible or refused
)

// encrypts reports whether a scheme ever does.
func encrypts(scheme lookup.Scheme) bool {
	return scheme != lookup.SchemeSMTP && scheme != lookup.SchemeLMTP
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

// lmtp reports whether the dialogue is LMTP (RFC 2033).
func (p policy) lmtp() bool { return p.scheme == lookup.SchemeLMTP }
