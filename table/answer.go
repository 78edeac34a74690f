package table

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"tabard/internal/address"
)

// ParseCertAuth reads a certauth answer: one user name.
func ParseCertAuth(row Row) (string, error) {
	user := strings.TrimSpace(only(row))
	if user == "" || len(user) > MaxKey || address.OneLine(user, MaxKey) != user {
		return "", errors.New("certauth: the answer is not a user name")
	}
	return user, nil
}

// ParseConfig reads a config answer: the text of a configuration.
func ParseConfig(row Row) (string, error) {
	if len(row) == 0 {
		return "", errors.New("config: nothing in the answer")
	}
	return row[0], nil
}

// CertUser returns the user of a client certificate's identity, ErrNotFound, or a
// temporary error.
func (t *Table) CertUser(ctx context.Context, identity string) (string, error) {
	return ask(ctx, t, CertAuth, identity, ParseCertAuth)
}

// TLSPolicy returns the policy for a destination, ErrNotFound, or a temporary
// error.
func (t *Table) TLSPolicy(ctx context.Context, domain string) (Policy, error) {
	return ask(ctx, t, TLSPolicy, domain, ParseTLSPolicy)
}

// DKIMKeys returns the signing keys of a domain, ErrNotFound, or a temporary
// error.
func (t *Table) DKIMKeys(ctx context.Context, domain string) ([]DKIMKey, error) {
	return ask(ctx, t, DKIM, domain, ParseDKIM)
}

// ConfigText returns the configuration called name, ErrNotFound, or a temporary
// error.
func (t *Table) ConfigText(ctx context.Context, name string) (string, error) {
	return ask(ctx, t, Config, name, ParseConfig)
}

// CheckRow reports why an answer of a service could not be used. Its text holds
// no secret.
func CheckRow(s Service, key string, row Row) error {
	var err error
	switch s {
	case Alias:
		_, err = ParseNodes(row)
	case Credentials:
		_, err = ParseCredentials(key, row)
	case UserInfo:
		_, err = ParseUserInfo(row)
	case Source:
		_, err = ParseSource(row)
	case AddrName:
		_, err = ParseAddrName(row)
	case MailAddrMap:
		_, err = ParseMailAddrs(row)
	case RelayHost:
		_, err = ParseRelayHosts(row)
	case Cert:
		_, err = ParseKeyPairs(row)
	case CA:
		_, err = ParseCA(row)
	case CertAuth:
		_, err = ParseCertAuth(row)
	case TLSPolicy:
		_, err = ParseTLSPolicy(row)
	case DKIM:
		_, err = ParseDKIM(row)
	case Config:
		_, err = ParseConfig(row)
	}
	if err != nil {
		return fmt.Errorf("the answer cannot be used: %w", err)
	}
	return nil
}
