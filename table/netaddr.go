package table

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Network is an entry of service netaddr: a network, or the local socket.
type Network struct {
	Local  bool
	Prefix netip.Prefix
}

// ErrNetAddr is wrapped by every error of ParseNetAddr and ParseIP.
var ErrNetAddr = errors.New("bad network address")

// ParseNetAddr reads "local", an IPv4 or IPv6 address, or a network in CIDR
// form: "10/8", "192.0.2.0/24", "[2001:db8::]/32", "IPv6:2001:db8::/32".
// Without a length it is the single address.
func ParseNetAddr(s string) (Network, error) {
	if strings.EqualFold(s, LocalKey) {
		return Network{Local: true}, nil
	}
	text, length, hasLength := strings.Cut(s, "/")
	if hasLength {
		text = padIPv4(text)
	}
	ip, err := ParseIP(text)
	if err != nil {
		return Network{}, fmt.Errorf("%w: %q", ErrNetAddr, s)
	}
	bits := ip.BitLen()
	if hasLength {
		n, err := strconv.ParseUint(length, 10, 8)
		if err != nil || int(n) > bits {
			return Network{}, fmt.Errorf("%w: length of %q", ErrNetAddr, s)
		}
		bits = int(n)
	}
	return Network{Prefix: netip.PrefixFrom(ip, bits).Masked()}, nil
}

// padIPv4 completes the octets of "10" or "192.168", which a length may follow.
func padIPv4(s string) string {
	if s == "" || strings.Trim(s, "0123456789.") != "" || strings.HasSuffix(s, ".") {
		return s
	}
	for strings.Count(s, ".") < 3 {
		s += ".0"
	}
	return s
}

// ParseIP reads an IP address, with or without brackets, "IPv6:" and a scope.
// The scope is dropped; an IPv4 address mapped into IPv6 is IPv4.
func ParseIP(s string) (netip.Addr, error) {
	text := s
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, fmt.Errorf("%w: %q", ErrNetAddr, s)
		}
		text = inner
	}
	text, v6 := cutPrefixes(text, "ipv6:")
	ip, err := netip.ParseAddr(text)
	if err != nil || v6 && ip.Is4() {
		return netip.Addr{}, fmt.Errorf("%w: %q", ErrNetAddr, s)
	}
	return ip.WithZone("").Unmap(), nil
}

// Contains reports whether the key of a netaddr question lies in the network.
func (n Network) Contains(key string) bool {
	if n.Local || strings.EqualFold(key, LocalKey) {
		return n.Local && strings.EqualFold(key, LocalKey)
	}
	ip, err := ParseIP(key)
	return err == nil && n.Prefix.Contains(ip)
}
