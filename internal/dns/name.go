package dns

import (
	"errors"
	"net/netip"
	"strings"

	"tabard/internal/address"
)

var errBadName = errors.New("not a host name")

// cleanName turns a name from a mail address, a configuration or an answer into
// lower-case A-labels without the trailing dot, if it is the name of a host.
func cleanName(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	// 253 octets is what fits into 255 of wire format.
	if s == "" || len(s) > 253 || strings.HasPrefix(s, "[") {
		return "", errBadName
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "", errBadName
	}
	if err := address.CheckDomain(s); err != nil {
		return "", err
	}
	return address.ToASCII(s)
}

// canonical is the form in which owner names are compared. It does not judge.
func canonical(s string) string {
	return strings.ToLower(strings.TrimSuffix(s, "."))
}
