package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"tabard/internal/address"
)

// Scheme is the exact meaning of a relay URL, whatever dialect it was written in.
type Scheme string

// The schemes, by their names in Tabard's own dialect.
const (
	SchemeSMTPTLS Scheme = "smtp+tls" // STARTTLS when offered, else plain text: the default
	SchemeSMTP    Scheme = "smtp"     // plain text only
	SchemeTLS     Scheme = "tls"      // STARTTLS or nothing
	SchemeSMTPS   Scheme = "smtps"    // TLS from the first byte or nothing
	SchemeSSL     Scheme = "ssl"      // STARTTLS, else TLS from the first byte, or nothing
	SchemeBackup  Scheme = "backup"   // the domain's MXs that are better than the named one
	SchemeLMTP    Scheme = "lmtp"     // LMTP (RFC 2033)
)

// maxRelayURL bounds a relay URL, in bytes.
const maxRelayURL = 1024

// ErrRelayURL is wrapped by every error of ParseRelayURL.
var ErrRelayURL = errors.New("bad relay URL")

// RelayURL is a parsed [scheme://][label@]host[:port], or scheme+mx://[domain[:port]].
type RelayURL struct {
	Scheme Scheme
	Label  string // row of the auth table; empty: no authentication
	Host   string // host name in A-labels, IP address without brackets, or path of a socket
	Port   string // decimal, never empty; "0" for a socket
	// MX means the MXs of Host instead of Host itself, and with an empty Host
	// those of the mail's own domain.
	MX bool
}

// ByDomain reports whether where the URL leads depends on the domain of the mail.
func (u RelayURL) ByDomain() bool { return u.Scheme == SchemeBackup || u.MX && u.Host == "" }

// mxSuffix, after a scheme, asks for the MXs of what follows.
const mxSuffix = "+mx"

// ParseRelayURL reads a relay URL in Tabard's own dialect.
func ParseRelayURL(s string) (RelayURL, error) { return DialectTabard.ParseRelayURL(s) }

// ParseRelayURL reads a relay URL with the scheme meanings of the dialect. The
// result has them in Tabard's terms.
func (d Dialect) ParseRelayURL(s string) (RelayURL, error) {
	if len(s) > maxRelayURL {
		return RelayURL{}, fmt.Errorf("%w: longer than %d bytes", ErrRelayURL, maxRelayURL)
	}
	u, err := d.parseRelayURL(s)
	if err != nil {
		return RelayURL{}, fmt.Errorf("%w %q: %w", ErrRelayURL, s, err)
	}
	return u, nil
}

// CutRelayOrder splits "URL PRIORITY WEIGHT", as a table may hold it, where both
// numbers, or the second, may be missing.
func CutRelayOrder(s string) (url string, order []int) {
	url = strings.TrimSpace(s)
	for len(order) < 2 {
		i := strings.LastIndexAny(url, " \t")
		n, err := strconv.Atoi(url[i+1:])
		if err != nil {
			break
		}
		url, order = strings.TrimSpace(url[:i+1]), append([]int{n}, order...)
	}
	return url, order
}

// parseRelayURLs reads what a table may answer: URLs in order of preference, with
// commas between them, each perhaps with its priority and weight.
func (d Dialect) parseRelayURLs(s string) ([]RelayURL, error) {
	var all []RelayURL
	for one := range strings.SplitSeq(s, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		one, _ = CutRelayOrder(one)
		u, err := d.ParseRelayURL(one)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrRelayURL)
	}
	return all, nil
}

func (d Dialect) parseRelayURL(s string) (RelayURL, error) {
	u, rest, err := d.cutScheme(s)
	if err != nil {
		return RelayURL{}, err
	}
	if u.MX && rest == "" {
		return u.withDefaults()
	}
	if u.Scheme == SchemeLMTP {
		if i := strings.IndexByte(rest, '/'); i == 0 || i > 0 && rest[i-1] == '@' {
			return u.withSocket(rest[:i], rest[i:])
		}
	}
	// A label may be a mail address, a host never holds an @.
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if u.Label, err = checkLabel(rest[:i]); err != nil {
			return RelayURL{}, err
		}
		rest = rest[i+1:]
	}
	if u.Host, u.Port, err = splitHostPort(rest); err != nil {
		return RelayURL{}, err
	}
	return u.withDefaults()
}

// cutScheme splits off the scheme and translates it into Tabard's terms.
func (d Dialect) cutScheme(s string) (RelayURL, string, error) {
	name, rest, ok := strings.Cut(s, "://")
	if !ok {
		return RelayURL{Scheme: SchemeSMTPTLS}, s, nil
	}
	name = strings.ToLower(name)
	if d == DialectOpenSMTPD {
		scheme, err := openSMTPDScheme(name)
		return RelayURL{Scheme: scheme}, rest, err
	}
	base, mx := strings.CutSuffix(name, mxSuffix)
	switch u := (RelayURL{Scheme: Scheme(base), MX: mx}); u.Scheme {
	case SchemeSMTPTLS, SchemeSMTP, SchemeTLS, SchemeSMTPS, SchemeSSL:
		return u, rest, nil
	case SchemeBackup, SchemeLMTP:
		if mx {
			return u, "", fmt.Errorf("%s goes by MX always or never: no %q after it", base, mxSuffix)
		}
		return u, rest, nil
	}
	if name == "smtp+notls" {
		return RelayURL{}, "", errors.New(`"smtp+notls" is OpenSMTPD's name for plain text, which is "smtp" here; ` +
			`begin the file with "dialect opensmtpd" to keep OpenSMTPD's meanings`)
	}
	return RelayURL{}, "", fmt.Errorf("unknown scheme %q; expected one of smtp+tls, smtp, tls, smtps, ssl, backup, lmtp", name)
}

// openSMTPDScheme translates the names of OpenSMTPD 6.4 and later.
func openSMTPDScheme(name string) (Scheme, error) {
	switch name {
	case "smtp":
		return SchemeSMTPTLS, nil
	case "smtp+tls":
		return SchemeTLS, nil
	case "smtp+notls":
		return SchemeSMTP, nil
	case "smtps":
		return SchemeSMTPS, nil
	case "lmtp":
		return SchemeLMTP, nil
	}
	return "", fmt.Errorf("unknown scheme %q; expected one of smtp, smtp+tls, smtp+notls, smtps, lmtp", name)
}

func (u RelayURL) withSocket(label, path string) (RelayURL, error) {
	if label != "" {
		var err error
		if u.Label, err = checkLabel(strings.TrimSuffix(label, "@")); err != nil {
			return RelayURL{}, err
		}
	}
	if hasControl(path) || len(path) < 2 {
		return RelayURL{}, errors.New("bad path of a socket")
	}
	u.Host, u.Port = path, "0"
	return u, nil
}

// withDefaults fills in the port and checks what the scheme allows.
func (u RelayURL) withDefaults() (RelayURL, error) {
	switch {
	case u.Scheme == SchemeLMTP && u.Port == "":
		return RelayURL{}, errors.New("lmtp needs a port or the path of a socket")
	case u.Scheme == SchemeBackup && (u.Port != "" || u.Label != ""):
		return RelayURL{}, errors.New("backup takes nothing but the name of a mail exchanger")
	case u.MX && u.Label != "":
		return RelayURL{}, errors.New("a login needs a host that is named, not one that DNS names: no label with " + mxSuffix)
	case u.MX && isIP(u.Host):
		return RelayURL{}, errors.New("an address has no MX")
	case u.Port != "":
		return u, nil
	case u.Scheme == SchemeSMTPS:
		u.Port = "465"
	default:
		u.Port = "25"
	}
	return u, nil
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func checkLabel(label string) (string, error) {
	if label == "" {
		return "", errors.New("empty label before @")
	}
	if hasControl(label) || strings.ContainsAny(label, " /") {
		return "", fmt.Errorf("bad label %q", label)
	}
	return label, nil
}

// splitHostPort reads host[:port]; port is empty when there is none.
func splitHostPort(s string) (host, port string, err error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		lit, rest, closed := strings.Cut(inner, "]")
		if !closed {
			return "", "", errors.New("missing ]")
		}
		if host, err = checkIP(lit); err != nil {
			return "", "", err
		}
		if rest == "" {
			return host, "", nil
		}
		if rest[0] != ':' {
			return "", "", fmt.Errorf("%q after ]", rest)
		}
		port, err = checkPort(rest[1:])
		return host, port, err
	}
	name, num, hasPort := strings.Cut(s, ":")
	if strings.Contains(num, ":") {
		return "", "", errors.New("an IPv6 address must be in [brackets]")
	}
	if hasPort {
		if port, err = checkPort(num); err != nil {
			return "", "", err
		}
	}
	host, err = checkHostName(name)
	return host, port, err
}

func checkIP(lit string) (string, error) {
	if len(lit) > 5 && strings.EqualFold(lit[:5], "IPv6:") {
		lit = lit[5:]
	}
	addr, err := netip.ParseAddr(lit)
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address", lit)
	}
	if hasControl(addr.Zone()) || strings.ContainsAny(addr.Zone(), "[] ") {
		return "", fmt.Errorf("bad zone in %q", lit)
	}
	return addr.String(), nil
}

func checkHostName(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return "", errors.New("no host name")
	}
	if strings.Contains(name, "/") {
		return "", fmt.Errorf("host name %q holds a slash; a relay URL has no path", name)
	}
	if err := address.CheckDomain(name); err != nil {
		return "", fmt.Errorf("host name %q: %w", name, err)
	}
	return address.ToASCII(name)
}

func checkPort(s string) (string, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("bad port %q: want 1 to 65535", s)
	}
	return strconv.FormatUint(n, 10), nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// String returns the URL in Tabard's dialect; parsing it gives u again.
func (u RelayURL) String() string {
	label := u.Label
	if label != "" {
		label += "@"
	}
	host := u.Host
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "/") {
		host = "[" + host + "]"
	}
	scheme := string(u.Scheme)
	if u.MX {
		scheme += mxSuffix
	}
	s := scheme + "://" + label + host
	if strings.HasPrefix(host, "/") || u.Scheme == SchemeBackup || host == "" {
		return s
	}
	return s + ":" + u.Port
}
