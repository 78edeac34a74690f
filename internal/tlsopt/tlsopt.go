// Package tlsopt reads the options `protocols` and `ciphers` of listeners, relay
// actions and rows of TLS policies, and applies them to handshakes.
//
// The form is that of OpenSMTPD, whose values are libtls'. What crypto/tls
// cannot do is an error when the text is read, never ignored: versions with a
// gap between them, cipher suites of TLS 1.3 (there is no choice among them),
// and the cipher classes of OpenSSL.
package tlsopt

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Options restrict what a handshake may agree on. The zero value is the
// default: TLS 1.2 and 1.3, with the cipher suites that crypto/tls holds secure.
type Options struct {
	Min, Max uint16   // versions of TLS as crypto/tls counts them; 0: the default
	Suites   []uint16 // allowed with TLS 1.2; empty: the default
}

// ErrConflict is returned by And when nothing is left to agree on.
var ErrConflict = errors.New("no TLS version and cipher suite is left")

// versions are the names that TLS versions have, oldest first.
func versions() []struct {
	name string
	id   uint16
} {
	return []struct {
		name string
		id   uint16
	}{{"tlsv1.2", tls.VersionTLS12}, {"tlsv1.3", tls.VersionTLS13}}
}

// Parse reads both options; either may be empty. An error says which one is
// wrong, and what would be right.
func Parse(protocols, ciphers string) (Options, error) {
	var o Options
	var err error
	if protocols != "" {
		if o.Min, o.Max, err = parseProtocols(protocols); err != nil {
			return Options{}, fmt.Errorf("protocols %q: %w", protocols, err)
		}
	}
	if ciphers == "" {
		return o, nil
	}
	if o.Suites, err = parseCiphers(ciphers); err != nil {
		return Options{}, fmt.Errorf("ciphers %q: %w", ciphers, err)
	}
	if o.Min == tls.VersionTLS13 && len(o.Suites) > 0 {
		return Options{}, fmt.Errorf("ciphers %q: they have no effect where TLS 1.3 is the only protocol", ciphers)
	}
	return o, nil
}

var errProtocols = errors.New("expected TLSv1.2, TLSv1.3, TLSv1.2:TLSv1.3, >=TLSv1.2, !TLSv1.2, all, default or secure")

// parseProtocols reads words between colons, commas or blanks. A first word that
// excludes a version begins with all of them, as in libtls and Postfix.
func parseProtocols(text string) (lowest, highest uint16, err error) {
	allowed := map[uint16]bool{}
	for i, word := range words(text) {
		rest, not := strings.CutPrefix(strings.ToLower(word), "!")
		if i == 0 && not {
			allow(allowed, tls.VersionTLS12, tls.VersionTLS13, true)
		}
		from, to, err := protocolRange(rest)
		if err != nil {
			return 0, 0, err
		}
		allow(allowed, from, to, !not)
	}
	for _, v := range versions() {
		if allowed[v.id] {
			highest = v.id
			if lowest == 0 {
				lowest = v.id
			}
		}
	}
	if lowest == 0 {
		return 0, 0, fmt.Errorf("no version is left: %w", errProtocols)
	}
	return lowest, highest, nil
}

func allow(set map[uint16]bool, from, to uint16, yes bool) {
	for _, v := range versions() {
		if from <= v.id && v.id <= to {
			set[v.id] = yes
		}
	}
}

// protocolRange reads one word: a version, one with >= or <= before it, or a
// name for all.
func protocolRange(word string) (from, to uint16, err error) {
	switch word {
	case "all", "default", "secure":
		return tls.VersionTLS12, tls.VersionTLS13, nil
	}
	name := strings.TrimLeft(word, "<>=")
	op := strings.TrimSuffix(word, name)
	for _, v := range versions() {
		if name != v.name {
			continue
		}
		switch op {
		case "":
			return v.id, v.id, nil
		case ">=":
			return v.id, tls.VersionTLS13, nil
		case "<=":
			return tls.VersionTLS12, v.id, nil
		}
	}
	switch name {
	case "sslv2", "sslv3", "tlsv1", "tlsv1.0", "tlsv1.1":
		// To exclude them is no restriction; >=TLSv1 is everything there is.
		if op == ">=" {
			return tls.VersionTLS12, tls.VersionTLS13, nil
		}
		return 0, 0, fmt.Errorf("%s is too old to be used (RFC 8996): %w", name, errProtocols)
	}
	return 0, 0, fmt.Errorf("unknown version %.40q: %w", word, errProtocols)
}

// words splits at colons, commas and blanks.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == ',' || r == ' ' || r == '\t' })
}

// parseCiphers reads names of cipher suites, in OpenSSL's spelling or IANA's.
// The order means nothing: crypto/tls has its own.
func parseCiphers(text string) ([]uint16, error) {
	switch strings.ToLower(text) {
	case "default", "secure": // libtls' names for a sound choice
		return nil, nil
	}
	var ids []uint16
	for _, word := range words(text) {
		id, err := cipher(strings.ToUpper(word))
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("no cipher in it; %s", choices())
	}
	return ids, nil
}

func cipher(name string) (uint16, error) {
	for _, s := range tls.CipherSuites() {
		switch {
		case !slices.Contains(s.SupportedVersions, tls.VersionTLS12):
			if name == s.Name {
				return 0, fmt.Errorf("%s belongs to TLS 1.3, whose ciphers cannot be chosen: all of them are offered; %s", name, choices())
			}
		case name == s.Name, name == openSSLName(s.Name):
			return s.ID, nil
		}
	}
	for _, s := range tls.InsecureCipherSuites() {
		if name == s.Name || name == openSSLName(s.Name) {
			return 0, fmt.Errorf("%s is too weak to be used; %s", name, choices())
		}
	}
	return 0, fmt.Errorf("unknown cipher %.60q (OpenSSL's classes and operators are not understood); %s", name, choices())
}

// openSSLName spells TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 as OpenSSL does,
// ECDHE-RSA-AES128-GCM-SHA256.
func openSSLName(name string) string {
	name = strings.TrimPrefix(name, "TLS_")
	name = strings.TrimPrefix(strings.ReplaceAll(name, "_WITH_", "_"), "RSA_")
	name = strings.ReplaceAll(name, "AES_128_CBC", "AES128")
	name = strings.ReplaceAll(name, "AES_256_CBC", "AES256")
	name = strings.ReplaceAll(name, "AES_", "AES")
	name = strings.ReplaceAll(name, "CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305")
	return strings.ReplaceAll(name, "_", "-")
}

// choices names the suites that may be given.
func choices() string {
	var names []string
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			names = append(names, openSSLName(s.Name))
		}
	}
	return "expected one or more of " + strings.Join(names, ", ")
}

// bounds are the lowest and highest version with the defaults filled in.
func (o Options) bounds() (lowest, highest uint16) {
	lowest, highest = o.Min, o.Max
	if lowest == 0 {
		lowest = tls.VersionTLS12
	}
	if highest == 0 {
		highest = tls.VersionTLS13
	}
	return lowest, highest
}

// Apply restricts cfg.
func (o Options) Apply(cfg *tls.Config) {
	cfg.MinVersion, cfg.MaxVersion = o.bounds()
	cfg.CipherSuites = o.Suites
}

// Permits reports whether a handshake that agreed on version and suite keeps
// within the options.
func (o Options) Permits(version, suite uint16) bool {
	lowest, highest := o.bounds()
	if version < lowest || version > highest {
		return false
	}
	return version >= tls.VersionTLS13 || len(o.Suites) == 0 || slices.Contains(o.Suites, suite)
}

// And returns what both allow, or ErrConflict when that is nothing.
func (o Options) And(other Options) (Options, error) {
	if other.Min == 0 && other.Max == 0 && len(other.Suites) == 0 {
		return o, nil
	}
	lowest, highest := o.bounds()
	from, to := other.bounds()
	both := Options{Min: max(lowest, from), Max: min(highest, to), Suites: o.Suites}
	switch {
	case len(o.Suites) == 0:
		both.Suites = other.Suites
	case len(other.Suites) > 0:
		both.Suites = slices.DeleteFunc(slices.Clone(o.Suites), func(id uint16) bool { return !slices.Contains(other.Suites, id) })
	}
	if both.Min > both.Max {
		return Options{}, ErrConflict
	}
	if len(both.Suites) == 0 && len(o.Suites) > 0 {
		if both.Max < tls.VersionTLS13 {
			return Options{}, ErrConflict
		}
		both.Min = tls.VersionTLS13
	}
	return both, nil
}
