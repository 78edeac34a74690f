package table

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"tabard/internal/address"
)

// ParseSource reads a source row: IP addresses, with or without brackets.
func ParseSource(row Row) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, text := range listOf(row) {
		ip, err := ParseIP(text)
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		out = append(out, ip)
	}
	if len(out) == 0 {
		return nil, errors.New("source: no address in the answer")
	}
	return out, nil
}

// ParseAddrName reads an addrname answer: one host name.
func ParseAddrName(row Row) (string, error) {
	name := strings.TrimSpace(only(row))
	if name == "" || address.CheckDomain(name) != nil {
		return "", fmt.Errorf("addrname: %q is not a host name", address.OneLine(name, 100))
	}
	return strings.ToLower(name), nil
}

// only returns the single column, or nothing.
func only(row Row) string {
	if len(row) != 1 {
		return ""
	}
	return row[0]
}
