package table

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Login is the answer of service credentials.
type Login struct {
	User     string
	Password string // crypt(3) style hash for listeners, clear text for relays
}

// String keeps the password out of logs.
func (c Login) String() string { return c.User + ":***" }

// GoString keeps the password out of %#v.
func (c Login) GoString() string { return strconv.Quote(c.String()) }

// ParseCredentials reads the answer for key. Two columns are user and password;
// one column is "user:password", cut at the first colon, or a password alone,
// which is the key's. Errors never quote the row.
func ParseCredentials(key string, row Row) (Login, error) {
	switch len(row) {
	case 1:
		return parseUserPassword(key, row[0])
	case 2:
		user := row[0]
		if user == "" {
			user = key
		}
		if row[1] == "" {
			return Login{}, errors.New("credentials: empty password")
		}
		return cleanCredentials(user, row[1])
	}
	return Login{}, fmt.Errorf("credentials: %d columns, want 1 or 2", len(row))
}

func parseUserPassword(key, text string) (Login, error) {
	if len(text) < 3 {
		return Login{}, errors.New("credentials: shorter than 3 characters")
	}
	if text[0] == ':' || text[len(text)-1] == ':' {
		return Login{}, errors.New("credentials: begins or ends with a colon")
	}
	user, password, ok := strings.Cut(text, ":")
	if !ok {
		return cleanCredentials(key, text)
	}
	return cleanCredentials(user, password)
}

func cleanCredentials(user, password string) (Login, error) {
	if strings.ContainsAny(user, "\x00\r\n") || strings.ContainsAny(password, "\x00\r\n") {
		return Login{}, errors.New("credentials: NUL, CR or LF in them")
	}
	return Login{User: user, Password: password}, nil
}
