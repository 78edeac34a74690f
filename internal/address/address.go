// Package address reads and compares mail addresses (RFC 5321 section 4.1.2,
// RFC 6531) and makes text from strangers safe to write on one line.
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Longest parts of an address, in octets. RFC 5321 section 4.5.3.1 asks for 64 of a
// local part and to do without a limit where possible: rewritten senders (SRS) and
// those of mailing lists that name their recipient are longer.
const (
	MaxLocal  = 240
	MaxDomain = 255
)

// Address is a mailbox. The zero value is the null reverse-path "<>".
type Address struct {
	Local  string // as given, without quotes
	Domain string // lower case, U-labels and A-labels as given; "[...]" for a literal
}

// ErrSyntax is wrapped by every error of Parse.
var ErrSyntax = errors.New("bad address")

// Parse reads a mailbox without angle brackets. A missing domain is an error,
// except for the bare "postmaster" (RFC 5321 section 4.1.1.3).
func Parse(s string) (Address, error) {
	if s == "" {
		return Address{}, fmt.Errorf("%w: empty", ErrSyntax)
	}
	if !utf8.ValidString(s) {
		return Address{}, fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	local, domain := Split(s)
	if domain == "" {
		if strings.EqualFold(s, "postmaster") {
			return Address{Local: s}, nil
		}
		return Address{}, fmt.Errorf("%w: no domain", ErrSyntax)
	}
	plain, err := parseLocal(local)
	if err != nil {
		return Address{}, err
	}
	if err := CheckDomain(domain); err != nil {
		return Address{}, err
	}
	return Address{Local: plain, Domain: strings.ToLower(domain)}, nil
}

// Split cuts at the last '@'. Without one, domain is empty.
func Split(s string) (local, domain string) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

// String returns the mailbox, the local part quoted if it must be.
func (a Address) String() string {
	if a == (Address{}) {
		return ""
	}
	local := a.Local
	if !isDotString(local) {
		local = quote(local)
	}
	if a.Domain == "" {
		return local
	}
	return local + "@" + a.Domain
}

// ASCII reports whether the address needs no SMTPUTF8 (RFC 6531).
func ASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// SplitTag cuts a local part at the first delim that is not its first
// character: "user+tag" gives "user" and "tag".
func SplitTag(local, delim string) (user, tag string) {
	if delim == "" {
		return local, ""
	}
	i := strings.Index(local, delim)
	if i <= 0 {
		return local, ""
	}
	return local[:i], local[i+len(delim):]
}

// ToASCII returns a domain in lower-case A-labels (RFC 5891), or an address
// literal unchanged.
func ToASCII(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return strings.ToLower(domain), nil
	}
	if ASCII(domain) {
		return strings.ToLower(domain), nil
	}
	if strings.ContainsRune(domain, utf8.RuneError) { // idna makes an A-label of what is no UTF-8
		return "", fmt.Errorf("%w: domain %q is not UTF-8", ErrSyntax, domain)
	}
	a, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		return "", fmt.Errorf("%w: domain %q: %v", ErrSyntax, domain, err)
	}
	return a, nil
}

// Labels is ToASCII that judges nothing: a domain that has no such form is returned
// as it is.
func Labels(domain string) string {
	if ascii, err := ToASCII(domain); err == nil {
		return ascii
	}
	return domain
}

// Unicode returns a domain with U-labels for those A-labels that have them (RFC 5891), and
// any other as it is.
func Unicode(domain string) string {
	if u, err := idna.Lookup.ToUnicode(domain); err == nil {
		return u
	}
	return domain
}

// CheckDomain reports what is wrong with a domain or address literal.
func CheckDomain(domain string) error {
	if len(domain) > MaxDomain {
		return fmt.Errorf("%w: domain longer than %d octets", ErrSyntax, MaxDomain)
	}
	if strings.HasPrefix(domain, "[") {
		return checkLiteral(domain)
	}
	ascii, err := ToASCII(domain)
	if err != nil {
		return err
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if err := checkLabel(label); err != nil {
			return fmt.Errorf("%w in %q", err, domain)
		}
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > 63 {
		return fmt.Errorf("%w: label of %d octets", ErrSyntax, len(label))
	}
	if label[0] == '-' || label[len(label)-1] == '-' {
		return fmt.Errorf("%w: label begins or ends with a hyphen", ErrSyntax)
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		// The underscore is not a host name's, but real mail domains use it.
		if !isAlnum(c) && c != '-' && c != '_' {
			return fmt.Errorf("%w: %q", ErrSyntax, c)
		}
	}
	return nil
}

func checkLiteral(domain string) error {
	inner, ok := strings.CutSuffix(domain[1:], "]")
	if !ok {
		return fmt.Errorf("%w: literal without ]", ErrSyntax)
	}
	if len(inner) > 5 && strings.EqualFold(inner[:5], "IPv6:") {
		inner = inner[5:]
	}
	if _, err := netip.ParseAddr(inner); err != nil {
		return fmt.Errorf("%w: literal: %v", ErrSyntax, err)
	}
	return nil
}

// parseLocal checks a local part and strips its quotes.
func parseLocal(s string) (string, error) {
	if s == "" {
		return "", fmt.Errorf("%w: no local part", ErrSyntax)
	}
	plain := s
	if s[0] == '"' {
		var err error
		if plain, err = unquote(s); err != nil {
			return "", err
		}
	} else if !isDotString(s) {
		return "", fmt.Errorf("%w: local part", ErrSyntax)
	}
	if len(plain) > MaxLocal {
		return "", fmt.Errorf("%w: local part longer than %d octets", ErrSyntax, MaxLocal)
	}
	return plain, nil
}

func unquote(s string) (string, error) {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return "", fmt.Errorf("%w: quote not closed", ErrSyntax)
	}
	var b strings.Builder
	inner := s[1 : len(s)-1]
	for i := 0; i < len(inner); i++ {
		c := inner[i]
		if c == '\\' {
			if i++; i == len(inner) {
				return "", fmt.Errorf("%w: backslash at the end", ErrSyntax)
			}
			c = inner[i]
		} else if c == '"' {
			return "", fmt.Errorf("%w: bare quote", ErrSyntax)
		}
		if c < ' ' || c == 0x7f {
			return "", fmt.Errorf("%w: control character", ErrSyntax)
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isDotString reports whether s is a Dot-string of RFC 5321, or of RFC 6531
// when it holds UTF-8.
func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isAlnum(c) && c < utf8.RuneSelf && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", rune(c)) {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// OneLine makes text from a stranger safe for a log line, a header or a stored
// field: line ends become a space, other control and invalid characters '?',
// and it is cut at max bytes.
func OneLine(s string, max int) string {
	var b strings.Builder
	lineEnd := false
	for _, r := range s {
		if b.Len()+utf8.UTFMax > max {
			break
		}
		if r == '\r' || r == '\n' {
			lineEnd = true
			continue
		}
		if lineEnd && b.Len() > 0 {
			b.WriteByte(' ')
		}
		lineEnd = false
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError || unicode.IsControl(r) || !unicode.IsPrint(r) && r != ' ':
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
