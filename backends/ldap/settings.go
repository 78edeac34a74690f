package ldap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tabard/table"
)

// Defaults and bounds of the keys.
const (
	defaultTimeout  = 5 * time.Second
	defaultPage     = 500
	defaultDepth    = 10
	defaultMembers  = 1000
	maxGroupDepth   = 100
	maxGroupMembers = 10000
)

// settings is what a configuration file or a URL says.
type settings struct {
	name     string // of the table
	servers  []server
	bindDN   string
	secret   string // the password of bindDN
	external bool   // SASL EXTERNAL instead
	startTLS bool
	base     string
	scope    int
	page     int
	timeout  time.Duration
	follow   bool // referrals

	caFile, certFile, keyFile    string
	secretFile, passphraseFile   string
	tls                          *tls.Config
	passphrase                   []byte // of private keys in the directory
	certAttrs, certKeys, caAttrs []string

	lookup  map[table.Service]*query
	fetch   map[table.Service]*query
	members *query // entries that name the groups they are in
	groups  groups
	auth    auth
}

// query is what is asked for one service.
type query struct {
	name    string // of its keys, such as alias or fetch_relayhost
	service table.Service
	filter  *filter
	base    string
	scope   int // -1: the table's
	attrs   []string
	format  template // of each value; nil: as it is
}

// groups says how members of a group become values of an alias.
type groups struct {
	dnAttr     string   // holds DNs of members
	uidAttr    string   // holds names of members
	urlAttrs   []string // hold URLs that give members
	attrs      []string
	filter     string // of members reached by DN
	uidFilter  *filter
	depth, max int
}

// follows reports whether groups name their members.
func (g groups) follows() bool { return len(g.naming()) > 0 }

// naming returns the attributes that name members.
func (g groups) naming() []string {
	var attrs []string
	for _, a := range []string{g.dnAttr, g.uidAttr} {
		if a != "" {
			attrs = append(attrs, a)
		}
	}
	return append(attrs, g.urlAttrs...)
}

// auth says how a password is tried.
type auth struct {
	bind   bool
	dn     template
	filter *filter
	base   string
	scope  int
}

func newSettings(name string) *settings {
	return &settings{
		name: name, scope: ldap.ScopeWholeSubtree, page: defaultPage, timeout: defaultTimeout,
		certAttrs: []string{"userCertificate;binary", "cACertificate;binary"},
		certKeys:  []string{"pKCS8PrivateKey;binary", "userPrivateKey;binary", "encryptedPrivateKeyInfo;binary", "userPKCS12", "tabardTLSKey", "tabardTLSKeyDER"},
		caAttrs:   []string{"cACertificate;binary", "certificateRevocationList;binary", "authorityRevocationList;binary"},
		lookup:    make(map[table.Service]*query), fetch: make(map[table.Service]*query),
		groups: groups{depth: defaultDepth, max: defaultMembers, filter: "(objectClass=*)"},
		auth:   auth{scope: -1},
	}
}

// set takes one key of a configuration file.
func (s *settings) set(key, value string) (err error) {
	switch key {
	case "url":
		s.servers, err = parseServers(value)
	case "username":
		s.bindDN, err = parseDN(value)
	case "password":
		s.secret = value
	case "password_file":
		s.secretFile = value
	case "basedn":
		s.base, err = parseDN(value)
	case "ca_file":
		s.caFile = value
	case "tls_cert_file":
		s.certFile = value
	case "tls_key_file":
		s.keyFile = value
	case "key_passphrase_file":
		s.passphraseFile = value
	case "starttls":
		s.startTLS, err = parseBool(value)
	case "referrals":
		s.follow, err = parseBool(value)
	case "bind":
		s.external, err = choice(value, "simple", "external")
	case "auth":
		_, err = choice(value, "bind", "bind")
		s.auth.bind = err == nil
	case "scope":
		s.scope, err = parseScope(value)
	case "page_size":
		s.page, err = parseNumber(value, 0, 10000)
	case "timeout":
		s.timeout, err = parseTimeout(value)
	default:
		return s.setService(key, value)
	}
	return err
}

// setService takes SERVICE_what and fetch_SERVICE_what.
func (s *settings) setService(key, value string) error {
	rest, fetched := strings.CutPrefix(key, "fetch_")
	word, what, _ := strings.Cut(rest, "_")
	service, err := table.ParseService(word)
	if err != nil || what == "" {
		return errors.New("unknown key")
	}
	switch {
	case service == table.Auth && !fetched:
		return s.setAuth(what, value)
	case service == table.Cert && what == "key_attributes" && !fetched:
		s.certKeys, err = parseAttributes(value)
		return err
	case service == table.Alias && !fetched && (strings.HasPrefix(what, "deref") || strings.HasPrefix(what, "member")):
		return s.setGroups(what, value)
	}
	// source and regex can only be fetched: their plain keys mean that.
	fetched = fetched || service == table.Source || service == table.Regex
	if fetched && service != table.Source && service != table.RelayHost && !table.Walked(service) {
		return fmt.Errorf("unknown key: %s is no list", service)
	}
	return s.query(service, fetched).set(what, value, s.name)
}

// query returns the query of a service, which is made when there is none.
func (s *settings) query(service table.Service, fetched bool) *query {
	queries, name := s.lookup, service.String()
	if fetched {
		queries = s.fetch
		if service != table.Source && service != table.Regex {
			name = "fetch_" + name
		}
	}
	if queries[service] == nil {
		queries[service] = &query{name: name, service: service, scope: -1}
	}
	return queries[service]
}

func (q *query) set(what, value, name string) (err error) {
	switch what {
	case "filter":
		q.filter, err = parseFilter(value, name)
	case "attributes":
		q.attrs, err = parseAttributes(value)
	case "base":
		q.base, err = parseDN(value)
	case "scope":
		q.scope, err = parseScope(value)
	case "format":
		q.format, err = parseTemplate(value, name)
		if err == nil && !q.format.keyed() {
			err = errors.New("has no %s for the value")
		}
	default:
		err = errors.New("unknown key")
	}
	return err
}

func (s *settings) setAuth(what, value string) (err error) {
	switch what {
	case "dn":
		if s.auth.dn, err = parseTemplate(value, ldap.EscapeDN(s.name)); err != nil {
			return err
		}
		dn, _ := s.auth.dn.fill("a@b", ldap.EscapeDN)
		if _, err = ldap.ParseDN(dn); err == nil && !s.auth.dn.keyed() {
			err = errors.New("has no placeholder for the user")
		}
	case "filter":
		s.auth.filter, err = parseFilter(value, s.name)
		if err == nil && !s.auth.filter.root.keyed() {
			err = errors.New("has no placeholder for the user")
		}
	case "base":
		s.auth.base, err = parseDN(value)
	case "scope":
		s.auth.scope, err = parseScope(value)
	default:
		err = errors.New("unknown key")
	}
	return err
}

func (s *settings) setGroups(what, value string) (err error) {
	g := &s.groups
	switch what {
	case "deref":
		g.dnAttr, err = parseAttribute(value)
	case "deref_attributes":
		g.attrs, err = parseAttributes(value)
	case "deref_filter":
		var f *filter
		if f, err = parseFilter(value, s.name); err == nil && f.root.keyed() {
			err = errors.New("must not have a placeholder")
		}
		if err == nil {
			g.filter, _ = f.expand("")
		}
	case "deref_depth":
		g.depth, err = parseNumber(value, 1, maxGroupDepth)
	case "deref_limit":
		g.max, err = parseNumber(value, 1, maxGroupMembers)
	case "members_filter":
		s.members = &query{name: "alias_members", service: table.Alias, scope: -1}
		s.members.filter, err = parseFilter(value, s.name)
	case "member_uid":
		g.uidAttr, err = parseAttribute(value)
	case "member_url":
		g.urlAttrs, err = parseAttributes(value)
	case "member_uid_filter":
		g.uidFilter, err = parseFilter(value, s.name)
		if err == nil && !g.uidFilter.root.keyed() {
			err = errors.New("has no placeholder for the name")
		}
	default:
		err = errors.New("unknown key")
	}
	return err
}

// load reads the files that the settings name.
func (s *settings) load() error {
	for _, f := range []struct {
		path string
		take func(b []byte)
	}{
		{s.secretFile, func(b []byte) { s.secret = firstLine(b) }},
		{s.passphraseFile, func(b []byte) { s.passphrase = []byte(firstLine(b)) }},
	} {
		if f.path == "" {
			continue
		}
		b, err := readFile(f.path, maxFile)
		if err != nil {
			return err
		}
		f.take(b)
	}
	if s.bindDN != "" && s.secret == "" {
		return errors.New("the password of username is empty: that would be an anonymous bind (RFC 4513, 5.1.2)")
	}
	return s.loadTLS()
}

func (s *settings) loadTLS() error {
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.caFile != "" {
		b, err := readFile(s.caFile, maxFile)
		if err != nil {
			return err
		}
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM(b) {
			return fmt.Errorf("ca_file: %s has no certificate", s.caFile)
		}
	}
	if s.certFile != "" {
		pair, err := tls.LoadX509KeyPair(s.certFile, s.keyFile)
		if err != nil {
			return fmt.Errorf("tls_cert_file: %w", err)
		}
		s.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// password returns what to bind with. A password_file that was replaced counts
// as soon as a new connection is made.
func (s *settings) password() string {
	if s.secretFile != "" {
		if b, err := readFile(s.secretFile, maxFile); err == nil && firstLine(b) != "" {
			return firstLine(b)
		}
	}
	return s.secret
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimRight(line, "\r")
}

func parseDN(value string) (string, error) {
	if _, err := ldap.ParseDN(value); err != nil {
		return "", fmt.Errorf("%q is not a DN: %w", value, err)
	}
	return value, nil
}

func parseBool(value string) (bool, error) {
	switch value {
	case "yes", "no":
		return value == "yes", nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", value)
}

// choice reports whether value is the second of two words.
func choice(value, first, second string) (bool, error) {
	if value != first && value != second {
		return false, fmt.Errorf("%q; expected %s", value, strings.Join(slices.Compact([]string{first, second}), " or "))
	}
	return value == second, nil
}

func parseScope(value string) (int, error) {
	switch value {
	case "base":
		return ldap.ScopeBaseObject, nil
	case "one":
		return ldap.ScopeSingleLevel, nil
	case "sub":
		return ldap.ScopeWholeSubtree, nil
	}
	return 0, fmt.Errorf("%q; expected base, one or sub", value)
}

func parseNumber(value string, min, max int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < min || n > max {
		return 0, fmt.Errorf("%q is not a number from %d to %d", value, min, max)
	}
	return n, nil
}

// parseTimeout reads seconds, or a duration with its unit.
func parseTimeout(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if n, nerr := strconv.Atoi(value); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 10*time.Millisecond || d > 10*time.Minute {
		return 0, fmt.Errorf("%q is not a time from 10ms to 10m", value)
	}
	return d, nil
}

// parseAttributes reads names with commas or blanks between them.
func parseAttributes(value string) ([]string, error) {
	names := strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	if len(names) == 0 {
		return nil, errors.New("names no attribute")
	}
	for _, n := range names {
		if _, err := parseAttribute(n); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func parseAttribute(value string) (string, error) {
	if !isAttribute(value) {
		return "", fmt.Errorf("%q is not the name of an attribute", value)
	}
	return value, nil
}
