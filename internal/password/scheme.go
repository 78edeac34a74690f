package password

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// cutScheme takes the {SCHEME} off a stored hash and undoes Dovecot's .B64 and
// .HEX encodings. Without one, scheme is empty.
func cutScheme(stored string) (scheme, rest string, err error) {
	if stored[0] != '{' {
		return "", stored, nil
	}
	name, rest, ok := strings.Cut(stored[1:], "}")
	if !ok || name == "" {
		return "", "", fmt.Errorf("%w: no scheme between braces", ErrFormat)
	}
	scheme, encoding, _ := strings.Cut(strings.ToUpper(name), ".")
	rest, err = recode(scheme, encoding, rest)
	return scheme, rest, err
}

// recode brings what follows a scheme into the scheme's usual encoding: text
// for the crypt family, base64 for digests.
func recode(scheme, encoding, rest string) (string, error) {
	var raw []byte
	var err error
	switch encoding {
	case "":
		return rest, nil
	case "B64", "BASE64":
		raw, err = decodeBase64(rest)
	case "HEX":
		raw, err = hex.DecodeString(rest)
	default:
		return "", fmt.Errorf("%w: encoding %q", ErrScheme, encoding)
	}
	if err != nil {
		return "", fmt.Errorf("%w: encoding %s", ErrFormat, encoding)
	}
	if scheme == "MD5" && strings.HasPrefix(string(raw), "$1$") {
		return string(raw), nil
	}
	if scheme == "PLAIN-MD5" {
		return hex.EncodeToString(raw), nil
	}
	if digest(scheme) != nil {
		return base64.StdEncoding.EncodeToString(raw), nil
	}
	return string(raw), nil
}

// isCryptScheme reports whether a scheme's hashes are crypt(3) strings, which say
// themselves what they are.
func isCryptScheme(scheme string) bool {
	switch scheme {
	case "", "CRYPT", "BLF-CRYPT", "BCRYPT", "MD5-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT",
		"ARGON2", "ARGON2I", "ARGON2D", "ARGON2ID":
		return true
	}
	return false
}

func isPlain(scheme string) bool {
	return scheme == "PLAIN" || scheme == "CLEAR" || scheme == "CLEARTEXT"
}

// weak reports whether a policy that refuses weak schemes refuses this one.
func weak(scheme, rest string) bool {
	switch scheme {
	case "MD5", "LDAP-MD5", "PLAIN-MD5", "SMD5", "MD5-CRYPT", "SHA", "SHA1", "SSHA", "SHA256", "SHA384", "SHA512":
		return true
	}
	return isPlain(scheme) || isCryptScheme(scheme) && (strings.HasPrefix(rest, "$1$") || strings.HasPrefix(rest, "$md5"))
}

func verifyScheme(scheme, rest, password string) (bool, error) {
	if isCryptScheme(scheme) {
		if strings.HasPrefix(rest, "SCRAM-SHA-") {
			return verifyRFC5803(rest, password)
		}
		return verifyCrypt(rest, password)
	}
	switch scheme {
	case "MD5":
		// Dovecot means md5-crypt by this name, directories a plain digest.
		if strings.HasPrefix(rest, "$") {
			return verifyCrypt(rest, password)
		}
		return verifyDigest(scheme, rest, password)
	case "PBKDF2":
		if strings.HasPrefix(rest, "$1$") {
			return verifyDovecotPBKDF2(rest, password)
		}
		return verifyPBKDF2(scheme, rest, password)
	case "PBKDF2-SHA1", "PBKDF2-SHA256", "PBKDF2-SHA512":
		return verifyPBKDF2(scheme, rest, password)
	case "PBKDF2_SHA256":
		return verifyPackedPBKDF2(rest, password)
	case "SCRAM-SHA-1", "SCRAM-SHA-256":
		return verifyScram(scheme, strings.Split(rest, ","), password)
	}
	if digest(scheme) != nil {
		return verifyDigest(scheme, rest, password)
	}
	return false, fmt.Errorf("%w: {%.20q}", ErrScheme, scheme)
}

// decodeBase64 reads standard base64 with or without padding, and passlib's
// variant that writes '.' for '+'.
func decodeBase64(s string) ([]byte, error) {
	s = strings.ReplaceAll(strings.TrimRight(s, "="), ".", "+")
	return base64.RawStdEncoding.DecodeString(s)
}
