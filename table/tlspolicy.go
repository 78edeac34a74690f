package table

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"tabard/internal/address"
	"tabard/internal/tlsopt"
)

// TLSLevel says how a connection to a server must be secured. The names are
// those of Postfix' smtp_tls_policy_maps, with sts for MTA-STS (RFC 8461).
type TLSLevel uint8

// The levels.
const (
	TLSNone        TLSLevel = iota + 1 // in clear, TLS is not tried
	TLSMay                             // TLS if the server offers it
	TLSEncrypt                         // TLS, whoever the server is
	TLSFingerprint                     // TLS, with one of the listed certificates or keys
	TLSVerify                          // TLS, with a certificate for the host that MX or relay names
	TLSSecure                          // TLS, with a certificate for the destination domain or a listed name
	TLSDANE                            // TLSA records decide; without any, as may
	TLSDANEOnly                        // TLSA records are required
	TLSSTS                             // the destination's MTA-STS policy decides; without any, as may
)

// tlsLevels are the levels by name.
var tlsLevels = map[string]TLSLevel{
	"none": TLSNone, "may": TLSMay, "encrypt": TLSEncrypt, "fingerprint": TLSFingerprint,
	"verify": TLSVerify, "secure": TLSSecure, "dane": TLSDANE, "dane-only": TLSDANEOnly, "sts": TLSSTS,
}

// String returns the level's name.
func (l TLSLevel) String() string {
	for name, level := range tlsLevels {
		if level == l {
			return name
		}
	}
	return fmt.Sprintf("tls(%d)", uint8(l))
}

// Supported reports whether the level is carried out. Mail for which a row asks
// another one waits.
func (l TLSLevel) Supported() bool { return l <= TLSSecure }

// Policy is the answer of service tlspolicy.
type Policy struct {
	Level TLSLevel
	// Names are those that a certificate may carry instead of the server's own,
	// for verify and secure. One that begins with a dot stands for any name below.
	Names []string
	// Fingerprints are SHA-256 digests of certificates or of their public keys.
	Fingerprints [][32]byte
	// Protocols and Ciphers are as written; empty: the defaults. Handshake is
	// what they mean.
	Protocols, Ciphers string
	Handshake          tlsopt.Options
}

// ParseTLSPolicy reads "LEVEL [option=value ...]", in one column or several:
// "may", "verify match=.example.org", "secure match=a.example:b.example",
// "fingerprint=HEX", "fingerprint match=HEX|HEX", "encrypt protocols=>=TLSv1.2".
// Digests are SHA-256 in hexadecimal, with colons or without.
func ParseTLSPolicy(row Row) (Policy, error) {
	fields := strings.Fields(strings.Join(row, " "))
	if len(fields) == 0 {
		return Policy{}, fmt.Errorf("tlspolicy: nothing in the answer")
	}
	word, value, hasValue := strings.Cut(strings.ToLower(fields[0]), "=")
	level, ok := tlsLevels[word]
	if !ok || hasValue && level != TLSFingerprint {
		return Policy{}, fmt.Errorf("tlspolicy: unknown level %q; expected one of none, may, encrypt, verify, secure, fingerprint=HEX, dane, dane-only, sts", address.OneLine(fields[0], 80))
	}
	p := Policy{Level: level}
	if hasValue {
		if err := p.addMatch(value); err != nil {
			return Policy{}, err
		}
	}
	for _, f := range fields[1:] {
		if err := p.option(f); err != nil {
			return Policy{}, err
		}
	}
	if level == TLSFingerprint && len(p.Fingerprints) == 0 {
		return Policy{}, fmt.Errorf("tlspolicy: fingerprint names no digest")
	}
	ciphers := p.Ciphers
	switch strings.ToLower(ciphers) {
	case "high", "medium": // Postfix' grades: every cipher that is offered here is of both
		ciphers = ""
	}
	var err error
	if p.Handshake, err = tlsopt.Parse(p.Protocols, ciphers); err != nil {
		return Policy{}, fmt.Errorf("tlspolicy: %w", err)
	}
	return p, nil
}

func (p *Policy) option(field string) error {
	name, value, ok := strings.Cut(field, "=")
	if ok && value != "" {
		switch strings.ToLower(name) {
		case "match":
			return p.addMatch(value)
		case "protocols":
			p.Protocols = value
			return nil
		case "ciphers":
			p.Ciphers = value
			return nil
		}
	}
	return fmt.Errorf("tlspolicy: unknown option %q; expected match=, protocols= or ciphers=", address.OneLine(field, 80))
}

// addMatch reads what a certificate must match: names between colons, or digests
// between bars.
func (p *Policy) addMatch(value string) error {
	if p.Level == TLSFingerprint {
		for text := range strings.SplitSeq(value, "|") {
			digest, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
			if err != nil || len(digest) != 32 {
				return fmt.Errorf("tlspolicy: fingerprint %q is not a SHA-256 digest in hexadecimal", address.OneLine(text, 100))
			}
			p.Fingerprints = append(p.Fingerprints, [32]byte(digest))
		}
		return nil
	}
	if p.Level != TLSVerify && p.Level != TLSSecure {
		return fmt.Errorf("tlspolicy: match has no meaning with level %s", p.Level)
	}
	for name := range strings.SplitSeq(strings.ToLower(value), ":") {
		// Postfix' words for the server's own name and the destination's.
		if special := []string{"hostname", "nexthop", "dot-nexthop"}; !slices.Contains(special, name) &&
			address.CheckDomain(strings.TrimPrefix(name, ".")) != nil {
			return fmt.Errorf("tlspolicy: match %q is not a host name", address.OneLine(name, 80))
		}
		p.Names = append(p.Names, name)
	}
	return nil
}
