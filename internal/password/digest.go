package password

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// digest returns the hash of a scheme that hashes once (the digest, then the
// salt if any, in base64), or nil. They are weak, and existing databases are
// full of them.
func digest(scheme string) func() hash.Hash {
	switch scheme {
	case "MD5", "LDAP-MD5", "PLAIN-MD5", "SMD5":
		return md5.New
	case "SHA", "SHA1", "SSHA":
		return sha1.New
	case "SHA256", "SSHA256":
		return sha256.New
	case "SHA384", "SSHA384":
		return sha512.New384
	case "SHA512", "SSHA512":
		return sha512.New
	}
	return nil
}

func verifyDigest(scheme, rest, password string) (bool, error) {
	decode := decodeBase64
	if scheme == "PLAIN-MD5" {
		decode = hex.DecodeString
	}
	raw, err := decode(rest)
	h := digest(scheme)()
	salted := scheme == "SMD5" || strings.HasPrefix(scheme, "SSHA")
	if err != nil || len(raw) < h.Size() || !salted && len(raw) != h.Size() {
		return false, fmt.Errorf("%w: {%s}", ErrFormat, scheme)
	}
	sum, salt := raw[:h.Size()], raw[h.Size():]
	h.Write([]byte(password))
	h.Write(salt)
	return subtle.ConstantTimeCompare(h.Sum(nil), sum) == 1, nil
}

// verifyPBKDF2 reads "rounds$salt$key", salt and key in base64, as OpenLDAP,
// passlib and FreeIPA write it.
func verifyPBKDF2(scheme, rest, password string) (bool, error) {
	newHash := sha1.New
	switch scheme {
	case "PBKDF2-SHA256":
		newHash = sha256.New
	case "PBKDF2-SHA512":
		newHash = sha512.New
	}
	parts := strings.Split(rest, "$")
	if len(parts) != 3 {
		return false, fmt.Errorf("%w: {%s}", ErrFormat, scheme)
	}
	salt, err1 := decodeBase64(parts[1])
	key, err2 := decodeBase64(parts[2])
	rounds, err := parseRounds(parts[0])
	if err1 != nil || err2 != nil {
		return false, fmt.Errorf("%w: {%s}", ErrFormat, scheme)
	}
	if err != nil {
		return false, err
	}
	return matchPBKDF2(newHash, password, salt, key, rounds)
}

// verifyDovecotPBKDF2 reads "$1$salt$rounds$key": PBKDF2 with SHA-1, the salt as it
// stands, the key in hexadecimal.
func verifyDovecotPBKDF2(rest, password string) (bool, error) {
	parts := strings.Split(rest, "$")
	if len(parts) != 5 {
		return false, fmt.Errorf("%w: {PBKDF2}", ErrFormat)
	}
	rounds, err := parseRounds(parts[3])
	if err != nil {
		return false, err
	}
	key, err := hex.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("%w: {PBKDF2}", ErrFormat)
	}
	return matchPBKDF2(sha1.New, password, []byte(parts[2]), key, rounds)
}

// verifyPackedPBKDF2 reads 389-ds' form: base64 of 4 bytes of rounds, 64 of
// salt, 256 of key.
func verifyPackedPBKDF2(rest, password string) (bool, error) {
	raw, err := decodeBase64(rest)
	if err != nil || len(raw) != 4+64+256 {
		return false, fmt.Errorf("%w: {PBKDF2_SHA256}", ErrFormat)
	}
	rounds := int64(binary.BigEndian.Uint32(raw))
	if rounds < 1 || rounds > maxRounds {
		return false, ErrCost
	}
	return matchPBKDF2(sha256.New, password, raw[4:68], raw[68:], int(rounds))
}

func matchPBKDF2(newHash func() hash.Hash, password string, salt, key []byte, rounds int) (bool, error) {
	if len(key) < minKey {
		return false, fmt.Errorf("%w: pbkdf2: the key is cut", ErrFormat)
	}
	got, err := pbkdf2.Key(newHash, password, salt, rounds, len(key))
	if err != nil {
		return false, fmt.Errorf("%w: pbkdf2", ErrFormat)
	}
	return subtle.ConstantTimeCompare(got, key) == 1, nil
}

// verifyRFC5803 reads "SCRAM-SHA-256$rounds:salt$stored:server" (RFC 5803
// section 2), which PostgreSQL uses too.
func verifyRFC5803(s, password string) (bool, error) {
	scheme, rest, _ := strings.Cut(s, "$")
	fields := strings.FieldsFunc(rest, func(r rune) bool { return r == '$' || r == ':' })
	return verifyScram(scheme, fields, password)
}

// verifyScram judges rounds, salt, StoredKey and ServerKey (RFC 5802 section 3).
func verifyScram(scheme string, fields []string, password string) (bool, error) {
	newHash := sha256.New
	switch scheme {
	case "SCRAM-SHA-1":
		newHash = sha1.New
	case "SCRAM-SHA-256":
	default:
		return false, ErrScheme
	}
	if len(fields) != 4 {
		return false, fmt.Errorf("%w: {%s}", ErrFormat, scheme)
	}
	rounds, err := parseRounds(fields[0])
	if err != nil {
		return false, err
	}
	salt, err1 := decodeBase64(fields[1])
	stored, err2 := decodeBase64(fields[2])
	size := newHash().Size()
	if err1 != nil || err2 != nil || len(stored) != size {
		return false, fmt.Errorf("%w: {%s}", ErrFormat, scheme)
	}
	salted, err := pbkdf2.Key(newHash, password, salt, rounds, size)
	if err != nil {
		return false, fmt.Errorf("%w: {%s}", ErrFormat, scheme)
	}
	mac := hmac.New(newHash, salted)
	mac.Write([]byte("Client Key"))
	h := newHash()
	h.Write(mac.Sum(nil))
	return subtle.ConstantTimeCompare(h.Sum(nil), stored) == 1, nil
}

// parseRounds reads a number of iterations and holds it against maxRounds.
func parseRounds(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%w: number of rounds", ErrFormat)
	}
	if n > maxRounds {
		return 0, ErrCost
	}
	return int(n), nil
}
