// Package password verifies passwords against stored hashes of the schemes that
// mail databases hold, and makes new hashes.
//
// A stored hash is a crypt(3) string ("$2y$...", "$6$...", "$argon2id$...",
// "$y$..."), alone or behind a {SCHEME} name of Dovecot or of an LDAP directory
// ("{BLF-CRYPT}$2y$...", "{SSHA512}base64", "{SCRAM-SHA-256}..."). What a hash
// may cost in time and memory is bounded, so that a row of the database cannot
// stop the server. No error holds any part of a password or hash.
package password

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"github.com/go-crypt/crypt"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
)

// Bounds on what is looked at, in bytes.
const (
	MaxPassword = 1024
	maxStored   = 4096
)

// bcryptCost is about 30 ms on a present-day core: slow for a thief, and a login
// takes no memory, which matters more on a server that many clients log in to
// at once than argon2id's resistance to special hardware.
const bcryptCost = 10

// bcryptMax is the longest password that bcrypt looks at, in bytes.
const bcryptMax = 72

// schemeChars are those that names of schemes are made of.
const schemeChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

var (
	// ErrScheme means that the stored hash is of no scheme known here.
	ErrScheme = errors.New("unknown password scheme")
	// ErrPlain means that the stored password is not hashed at all, and that is
	// not allowed.
	ErrPlain = errors.New("stored password is not hashed")
	// ErrWeak means that the scheme is one that the policy refuses.
	ErrWeak = errors.New("weak password scheme")
	// ErrFormat means that the scheme is known but the hash cannot be read.
	ErrFormat = errors.New("malformed password hash")
	// ErrCost means that verifying would take more time or memory than allowed.
	ErrCost = errors.New("password hash is too expensive to verify")
	// ErrPassword means that a password cannot be hashed: it is empty, too
	// long, or holds a line end or NUL.
	ErrPassword = errors.New("unusable password")
)

// Policy says which stored passwords are judged at all. The zero value judges
// every scheme known here, and refuses what is not hashed.
type Policy struct {
	// DefaultScheme is that of stored hashes without a {SCHEME} that are no
	// crypt(3) strings either. Empty: such hashes are ErrScheme.
	DefaultScheme string
	// AllowPlain judges passwords that are stored in clear.
	AllowPlain bool
	// RefuseWeak refuses passwords in clear, digests without a salt, and
	// whatever is made of MD5 or SHA-1 by hashing once (or by md5-crypt).
	RefuseWeak bool
}

// Verify reports whether password opens stored, by the zero Policy.
func Verify(stored, password string) (bool, error) { return Policy{}.Verify(stored, password) }

// Verify reports whether password opens stored. An error means that stored
// cannot be judged (see the Err values); it says nothing about the password.
//
// Empty stored hashes and those that begin with '!' or '*' are locked accounts:
// nothing opens them. No hash is opened by an empty password or by one that
// holds CR, LF or NUL.
func (p Policy) Verify(stored, password string) (bool, error) {
	if Locked(stored) {
		return false, nil
	}
	if len(stored) > maxStored {
		return false, fmt.Errorf("%w: longer than %d bytes", ErrFormat, maxStored)
	}
	if !usable(password) {
		return false, nil
	}
	if p.DefaultScheme != "" && stored[0] != '{' && !isCrypt(stored) {
		stored = "{" + p.DefaultScheme + "}" + stored
	}
	scheme, rest, err := cutScheme(stored)
	if err != nil {
		return false, err
	}
	if p.RefuseWeak && weak(scheme, rest) {
		return false, ErrWeak
	}
	if isPlain(scheme) {
		if !p.AllowPlain {
			return false, ErrPlain
		}
		return subtle.ConstantTimeCompare([]byte(rest), []byte(password)) == 1, nil
	}
	return verifyScheme(scheme, rest, password)
}

// isCrypt reports whether stored has the form of crypt(3)'s strings or of RFC 5803.
func isCrypt(stored string) bool {
	return strings.HasPrefix(stored, "$") && strings.Count(stored, "$") >= 3 || strings.HasPrefix(stored, "SCRAM-SHA-")
}

// KnownScheme reports whether name can be a DefaultScheme.
func KnownScheme(name string) bool {
	scheme, encoding, _ := strings.Cut(strings.ToUpper(name), ".")
	if _, err := recode(scheme, encoding, ""); err != nil {
		return false
	}
	if isPlain(scheme) || digest(scheme) != nil {
		return true
	}
	// An empty hash is malformed where the scheme is known.
	_, err := verifyScheme(scheme, "", "x")
	return !errors.Is(err, ErrScheme) || isCryptScheme(scheme)
}

// Locked reports whether no password opens stored.
func Locked(stored string) bool {
	return stored == "" || stored[0] == '!' || stored[0] == '*'
}

// Hashed reports whether stored has the form of a hash of a known scheme, or of
// one that could be: a crypt(3) string, or a {SCHEME} other than those for
// plain text.
func Hashed(stored string) bool {
	if name, _, ok := strings.Cut(stored, "}"); ok && len(name) > 1 && name[0] == '{' {
		if isPlain(strings.ToUpper(name[1:])) {
			return false
		}
		return strings.Trim(name[1:], schemeChars) == ""
	}
	return isCrypt(stored)
}

// Hash returns a new bcrypt hash ("$2b$10$...") of password, which OpenSMTPD,
// Dovecot and most others understand too. bcrypt looks at 72 bytes, so longer
// passwords are refused rather than cut.
func Hash(password string) (string, error) {
	if !usable(password) {
		return "", fmt.Errorf("%w: empty, longer than %d bytes, or holds a line end or NUL", ErrPassword, MaxPassword)
	}
	if len(password) > bcryptMax {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrPassword, bcryptMax)
	}
	hasher, err := bcrypt.New(bcrypt.WithIterations(bcryptCost))
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	hash, err := hasher.Hash(password)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash.Encode(), nil
}

func usable(password string) bool {
	return password != "" && len(password) <= MaxPassword && !strings.ContainsAny(password, "\r\n\x00")
}

// verifyCrypt judges a crypt(3) string. The library's own errors are left out:
// they quote the hash.
func verifyCrypt(stored, password string) (ok bool, err error) {
	if err := checkCrypt(stored); err != nil {
		return false, err
	}
	// The library parses text from a database; a slip there must cost this
	// login, not the process that holds every table.
	defer func() {
		if recover() != nil {
			ok, err = false, fmt.Errorf("%w: verifier failed", ErrFormat)
		}
	}()
	decoder, err := crypt.NewDecoderAll()
	if err != nil {
		return false, fmt.Errorf("password decoder: %w", err)
	}
	hash, err := decoder.Decode(stored)
	if err != nil {
		return false, ErrFormat
	}
	ok, err = hash.MatchAdvanced(password)
	if err != nil {
		return false, ErrFormat
	}
	return ok, nil
}
