package table

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"tabard/internal/address"
)

// MaxKey is the longest key that is asked, in bytes.
const MaxKey = 1024

// ErrKey means that a key cannot be asked: too long, or with characters that
// would break a line protocol. It is temporary, as every error is.
var ErrKey = errors.New("bad key")

// NormalKey returns key as backends get it: in lower case, except for auth
// (passwords) and regex (patterns tell the cases apart). Keys longer than
// MaxKey and keys with NUL, CR or LF are ErrKey.
func NormalKey(s Service, key string) (string, error) {
	if len(key) > MaxKey {
		return "", fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrKey, len(key), MaxKey)
	}
	if strings.ContainsAny(key, "\x00\r\n") {
		return "", fmt.Errorf("%w: NUL, CR or LF in it", ErrKey)
	}
	if s == Auth || s == Regex {
		return key, nil
	}
	return Fold(key), nil
}

// Fold returns s in lower case. Bytes that are not UTF-8 stay as they are, so
// that different garbage stays different.
func Fold(s string) string {
	if utf8.ValidString(s) {
		return strings.ToLower(s)
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// AddrKey returns the key for an IP address in the services netaddr and
// addrname: IPv4 dotted, IPv6 in brackets.
func AddrKey(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// LocalKey is the netaddr key of the local socket and of expanded addresses.
const LocalKey = "local"

// MailAddrKey returns the mailaddr key for an envelope address: "@" for the
// null reverse-path.
func MailAddrKey(addr string) string {
	if addr == "" {
		return "@"
	}
	return addr
}

// UserKey returns a user name without +tag: the key of userinfo.
func UserKey(user, delim string) string {
	user, _ = address.SplitTag(user, delim)
	return user
}

// AliasKeys returns the keys to try, in order, for `alias <table>`:
// "user+tag", "user".
func AliasKeys(user, delim string) []string {
	bare, _ := address.SplitTag(user, delim)
	if bare == user {
		return []string{user}
	}
	return []string{user, bare}
}

// VirtualKeys returns the keys to try, in order, for `virtual <table>`:
// "user+tag@domain", "user@domain", "user+tag", "user", "@domain", "@". Without
// a domain (a user name that an expansion made) they are "user@" and "user",
// with their tag forms; then the walk ends.
func VirtualKeys(user, domain, delim string) []string {
	var keys []string
	forms := AliasKeys(user, delim)
	for _, u := range forms {
		keys = append(keys, u+"@"+domain)
	}
	keys = append(keys, forms...)
	if domain != "" {
		keys = append(keys, "@"+domain, "@")
	}
	return keys
}

// CertNames returns the keys to try, in order, for a server name in service
// cert: the name, and the wildcard of its parent. There are none for the empty
// name (the listener's default applies) nor a wildcard for an IP address.
func CertNames(name string) []string {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return nil
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return []string{name}
	}
	if _, parent, ok := strings.Cut(name, "."); ok && parent != "" && !strings.HasPrefix(name, "*.") {
		return []string{name, "*." + parent}
	}
	return []string{name}
}

// RelayDomainKeys returns the keys to try, in order, for a destination domain in
// service relayhost: "domain", "*.parent", "*". As in service domain, the
// wildcard stands for one label.
func RelayDomainKeys(domain string) []string {
	if domain == "" || strings.HasPrefix(domain, "[") {
		return append(nonEmpty(domain), "*")
	}
	return append(CertNames(domain), "*")
}

// RelaySenderKeys returns the keys to try, in order, for a reverse-path in
// service relayhost: "user+tag@domain", "user@domain", "@domain", "*". The null
// reverse-path has "@", "*".
func RelaySenderKeys(sender, delim string) []string {
	if sender == "" {
		return []string{"@", "*"}
	}
	user, domain := address.Split(sender)
	if domain == "" {
		return append(AliasKeys(user, delim), "*")
	}
	var keys []string
	for _, u := range AliasKeys(user, delim) {
		keys = append(keys, u+"@"+domain)
	}
	return append(keys, "@"+domain, "*")
}

// TLSPolicyKeys returns the keys to try, in order, for a destination domain or
// the name of a relay in service tlspolicy: "a.example.org", then for each parent
// "*.example.org" and ".example.org" (Postfix' form), and "*". The forms of a
// parent stand for any name below it. A host that is an address has itself, IPv6
// in brackets, and "*".
func TLSPolicyKeys(name string) []string {
	name = strings.TrimSuffix(name, ".")
	if ip, err := netip.ParseAddr(name); err == nil {
		return []string{AddrKey(ip), "*"}
	}
	keys := nonEmpty(name)
	if strings.HasPrefix(name, "[") || strings.HasPrefix(name, "/") {
		return append(keys, "*")
	}
	for _, parent, ok := strings.Cut(name, "."); ok && parent != ""; _, parent, ok = strings.Cut(parent, ".") {
		keys = append(keys, "*."+parent, "."+parent)
	}
	return append(keys, "*")
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
