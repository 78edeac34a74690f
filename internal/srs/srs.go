// Package srs rewrites reverse-paths by the Sender Rewriting Scheme, so that mail
// can be forwarded without failing SPF and its bounces still find their way back.
//
// A sender user@first.example becomes, at the forwarder own.example,
//
//	SRS0=HHHH=TT=first.example=user@own.example
//
// with a signature HHHH and the day TT. A forwarder that gets such a sender from
// another one keeps that one's part whole and names it,
//
//	SRS1=HHHH=other.example==HHHH=TT=first.example=user@own.example
//
// so that a bounce takes at most two steps back, however long the way out was.
// Others may have put '+' or '-' after SRS0 and SRS1, and may sign otherwise.
package srs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"strings"
	"time"

	"tabard/internal/address"
)

// Errors of Forward and Reverse.
var (
	// ErrInvalid means that none of the keys made the address.
	ErrInvalid = errors.New("this SRS address was not made here")
	// ErrExpired means that the address was made longer ago than it may be.
	ErrExpired = errors.New("this SRS address has expired")
	// ErrTooLong means that the rewritten address would be no address any more.
	ErrTooLong = errors.New("sender too long to be rewritten")
)

const (
	day      = 24 * time.Hour
	period   = 1024                               // days after which the stamp begins anew
	hashLen  = 4                                  // characters; other forwarders look for the stamp after four
	alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // of stamps; that of base32
	// maxPath is the longest reverse-path without its brackets (RFC 5321 section
	// 4.5.3.1.3).
	maxPath = 254
	// MaxTTL is the longest time that an address can hold.
	MaxTTL = 1000 * day
)

// Rewriter signs with its first key, and takes addresses back that any of its
// keys made. It is safe for concurrent use.
type Rewriter struct {
	keys [][]byte
	days int
}

// New returns a Rewriter whose addresses hold for ttl, in whole days. There must
// be a key.
func New(ttl time.Duration, key string, older ...string) *Rewriter {
	r := &Rewriter{days: int((min(ttl, MaxTTL) + day - 1) / day)}
	for _, k := range append([]string{key}, older...) {
		if k != "" {
			r.keys = append(r.keys, []byte(k))
		}
	}
	return r
}

// Is reports whether a local part looks like one that Forward made.
func Is(local string) bool { return kind(local) != 0 && local[4] == '=' }

// kind is '0' for SRS0, '1' for SRS1, else 0.
func kind(local string) byte {
	if len(local) < 6 || !strings.EqualFold(local[:3], "SRS") || !strings.Contains("=+-", local[4:5]) {
		return 0
	}
	if local[3] == '0' || local[3] == '1' {
		return local[3]
	}
	return 0
}

// Forward returns the reverse-path for mail from sender that is forwarded on
// behalf of an address at domain, to which its bounces will come.
func (r *Rewriter) Forward(sender address.Address, domain string, now time.Time) (address.Address, error) {
	var local string
	switch first, rest := split(sender); {
	case first != "":
		local = r.sign("SRS1=", first+"="+rest, domain)
	default: // A-labels need no SMTPUTF8
		local = r.sign("SRS0=", stamp(now)+"="+address.Labels(sender.Domain)+"="+sender.Local, domain)
	}
	a := address.Address{Local: local, Domain: domain}
	if len(local) > address.MaxLocal || len(a.String()) > maxPath {
		return address.Address{}, ErrTooLong
	}
	return a, nil
}

// split returns the forwarder that made the SRS0 address within a sender, and the
// rest of that address with its separator in front; nothing if there is none.
func split(sender address.Address) (first, rest string) {
	switch kind(sender.Local) {
	case '0':
		return address.Labels(sender.Domain), sender.Local[4:]
	case '1':
		// The other forwarder's signature goes: the bounce need not pass there.
		_, inner, _ := strings.Cut(sender.Local[5:], "=")
		first, rest, _ = strings.Cut(inner, "=")
		if rest == "" {
			return "", ""
		}
		return first, rest
	}
	return "", ""
}

func (r *Rewriter) sign(prefix, text, domain string) string {
	return prefix + mac(r.keys[0], prefix, text, domain) + "=" + text
}

// mac signs a rewritten address. Case does not count: servers on the way may
// change it.
func mac(key []byte, prefix, text, domain string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(strings.ToLower(prefix + text + "@" + domain)))
	return base32.StdEncoding.EncodeToString(h.Sum(nil))[:hashLen]
}

// Reverse returns the address that a bounce to rcpt is for: the sender before
// Forward, or the SRS0 address of the first forwarder.
func (r *Rewriter) Reverse(rcpt address.Address, now time.Time) (address.Address, error) {
	const at = len("SRS0=") + hashLen
	if !Is(rcpt.Local) || len(rcpt.Local) <= at || rcpt.Local[at] != '=' {
		return address.Address{}, ErrInvalid
	}
	prefix, hash, text := rcpt.Local[:5], rcpt.Local[5:at], rcpt.Local[at+1:]
	if !r.made(prefix, hash, text, rcpt.Domain) {
		return address.Address{}, ErrInvalid
	}
	if kind(rcpt.Local) == '1' {
		return r.reverse1(text, now)
	}
	tt, rest, _ := strings.Cut(text, "=")
	domain, user, ok := strings.Cut(rest, "=")
	made, dated := parseStamp(tt)
	if !ok || !dated {
		return address.Address{}, ErrInvalid
	}
	if !r.holds(made, now) {
		return address.Address{}, ErrExpired
	}
	return check(user, domain)
}

// made reports whether one of the keys signed an address.
func (r *Rewriter) made(prefix, hash, text, domain string) bool {
	ok := false
	for _, key := range r.keys {
		ok = hmac.Equal([]byte(mac(key, prefix, text, domain)), []byte(strings.ToUpper(hash))) || ok
	}
	return ok
}

// reverse1 takes an SRS1 address one step back. Its age is that of the address
// within, where that can be read: how the first forwarder signs is its own affair.
func (r *Rewriter) reverse1(text string, now time.Time) (address.Address, error) {
	first, rest, ok := strings.Cut(text, "=")
	if !ok || rest == "" {
		return address.Address{}, ErrInvalid
	}
	if fields := strings.SplitN(rest[1:], "=", 3); len(fields) == 3 {
		if made, dated := parseStamp(fields[1]); dated && !r.holds(made, now) {
			return address.Address{}, ErrExpired
		}
	}
	return check("SRS0"+rest, first)
}

// check makes sure that what comes out is an address.
func check(local, domain string) (address.Address, error) {
	a, err := address.Parse(address.Address{Local: local, Domain: domain}.String())
	if err != nil || a.Domain == "" {
		return address.Address{}, ErrInvalid
	}
	return a, nil
}

func today(now time.Time) int { return int(now.Unix()/int64(day/time.Second)) % period }

func stamp(now time.Time) string {
	d := today(now)
	return string([]byte{alphabet[d>>5&31], alphabet[d&31]})
}

// parseStamp reads two characters; false for anything else.
func parseStamp(s string) (int, bool) {
	if len(s) != 2 {
		return 0, false
	}
	s = strings.ToUpper(s)
	high, low := strings.IndexByte(alphabet, s[0]), strings.IndexByte(alphabet, s[1])
	return high<<5 | low, high >= 0 && low >= 0
}

// holds reports whether an address of a day is still good. Tomorrow's is: clocks
// differ.
func (r *Rewriter) holds(made int, now time.Time) bool {
	age := (today(now) - made + period) % period
	return age <= r.days || age == period-1
}
