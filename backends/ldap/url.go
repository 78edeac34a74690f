package ldap

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
)

// server is one place where the directory is served.
type server struct {
	scheme string // ldap, ldaps, ldapi
	addr   string // host:port, or the path of a socket
	host   string // the name that its certificate must have
}

// String returns the server as its URL, without what may follow.
func (s server) String() string {
	if s.scheme == "ldapi" {
		return "ldapi://" + url.PathEscape(s.addr)
	}
	return s.scheme + "://" + s.addr
}

func (s server) network() string {
	if s.scheme == "ldapi" {
		return "unix"
	}
	return "tcp"
}

// parseServers reads URLs with blanks between them. What can follow the host is
// for the other keys to say.
func parseServers(value string) ([]server, error) {
	var all []server
	for _, text := range strings.Fields(value) {
		servers, rest, err := parseHosts(text)
		if err != nil {
			return nil, err
		}
		if strings.Trim(rest, "/?") != "" {
			return nil, fmt.Errorf("%q: only scheme, host and port belong here; say the rest by basedn, scope and filters", text)
		}
		all = append(all, servers...)
	}
	return all, nil
}

// parseHosts reads the beginning of a URL. There may be several hosts, with
// commas between them, for servers that hold the same. rest is what follows.
func parseHosts(text string) (servers []server, rest string, err error) {
	scheme, after, ok := strings.Cut(text, "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "ldap" && scheme != "ldaps" && scheme != "ldapi" {
		return nil, "", fmt.Errorf("%q is no ldap://, ldaps:// or ldapi:// URL", text)
	}
	hosts := after
	if i := strings.IndexAny(after, "/?"); i >= 0 {
		hosts, rest = after[:i], after[i:]
	}
	for h := range strings.SplitSeq(hosts, ",") {
		s, err := parseHost(scheme, h)
		if err != nil {
			return nil, "", fmt.Errorf("%q: %w", text, err)
		}
		servers = append(servers, s)
	}
	return servers, rest, nil
}

// defaultSocket is where slapd listens when ldapi:/// says nothing.
const defaultSocket = "/var/run/slapd/ldapi"

func parseHost(scheme, text string) (server, error) {
	host, err := url.PathUnescape(text)
	if err != nil {
		return server{}, err
	}
	if scheme == "ldapi" {
		if host == "" {
			host = defaultSocket
		}
		if !filepath.IsAbs(host) {
			return server{}, fmt.Errorf("socket %q is not an absolute path; write its slashes as %%2F", host)
		}
		return server{scheme: scheme, addr: host}, nil
	}
	if host == "" {
		host = "localhost"
	}
	if strings.ContainsAny(host, "@ \t") {
		return server{}, fmt.Errorf("bad host %q", host)
	}
	u := url.URL{Host: host}
	name, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[scheme]
		if strings.HasSuffix(host, ":") || strings.Count(host, ":") == 1 {
			return server{}, fmt.Errorf("bad port in %q", host)
		}
	}
	if _, err := parseNumber(port, 1, 65535); err != nil || name == "" {
		return server{}, fmt.Errorf("bad host %q", host)
	}
	return server{scheme: scheme, addr: net.JoinHostPort(name, port), host: name}, nil
}

// parseURL reads a table's URL (RFC 4516): hosts, base, scope, a filter that
// every entry must pass, and extensions. What is asked for each service is the
// default for the schemas that every server has; see defaults.
func parseURL(text, name string) (*settings, error) {
	servers, rest, err := parseHosts(text)
	if err != nil {
		return nil, err
	}
	set := newSettings(name)
	set.servers = servers
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "?")
	if len(parts) > 5 {
		return nil, fmt.Errorf("%q: more than four question marks", text)
	}
	for i := range parts {
		if i < 4 { // extensions are a list first
			if parts[i], err = url.PathUnescape(parts[i]); err != nil {
				return nil, fmt.Errorf("%q: %w", text, err)
			}
		}
	}
	parts = append(parts, "", "", "", "")[:5]
	if err := set.setURL(parts); err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return set, nil
}

func (s *settings) setURL(parts []string) error {
	base, attrs, scope, filter, extensions := parts[0], parts[1], parts[2], parts[3], parts[4]
	if base == "" {
		return errors.New("no base DN: write ldap://host/dc=example,dc=org")
	}
	if err := s.set("basedn", base); err != nil {
		return err
	}
	if attrs != "" && attrs != "*" {
		return errors.New("attributes differ from service to service: say them in a configuration file, ldap:/path")
	}
	if scope != "" {
		if err := s.set("scope", scope); err != nil {
			return err
		}
	}
	for ext := range strings.SplitSeq(extensions, ",") {
		if err := s.setExtension(ext); err != nil {
			return err
		}
	}
	if err := s.defaults(filter); err != nil {
		return err
	}
	return s.finish()
}

// setExtension takes one extension of a URL. Unknown ones are an error whether
// or not they are marked critical.
func (s *settings) setExtension(text string) error {
	key, value, _ := strings.Cut(strings.TrimPrefix(text, "!"), "=")
	value, err := url.PathUnescape(value)
	if err != nil {
		return err
	}
	switch strings.ToLower(key) {
	case "":
		return nil
	case "x-starttls", "starttls", "1.3.6.1.4.1.1466.20037":
		s.startTLS = true
		return nil
	case "x-external":
		s.external = true
		return nil
	case "x-ca-file":
		return s.set("ca_file", value)
	case "bindname":
		return s.set("username", value)
	case "x-password-file":
		return s.set("password_file", value)
	}
	return fmt.Errorf("unknown extension %q; expected one of bindname, x-password-file, x-external, x-starttls, x-ca-file", key)
}

// defaults asks what inetOrgPerson, posixAccount, nisMailAlias and the
// certificate classes of RFC 4523 hold, of entries that pass the filter.
func (s *settings) defaults(filter string) error {
	if filter != "" {
		f, err := parseFilter(filter, s.name)
		if err != nil {
			return err
		}
		if f.root.keyed() {
			return errors.New("filter: must not have a placeholder: what is asked for each service comes on top of it")
		}
		filter, _ = f.expand("")
	}
	for _, d := range [][2]string{
		{"alias_filter", "(objectClass=nisMailAlias)(cn=%s)"},
		{"alias_attributes", "rfc822MailMember"},
		{"credentials_filter", "(objectClass=inetOrgPerson)(|(uid=%s)(mail=%s))"},
		{"credentials_attributes", "uid userPassword"},
		{"userinfo_filter", "(objectClass=posixAccount)(uid=%s)"},
		{"userinfo_attributes", "uidNumber gidNumber homeDirectory"},
		{"mailaddrmap_filter", "(objectClass=inetOrgPerson)(uid=%s)"},
		{"mailaddrmap_attributes", "mail"},
		{"mailaddr_filter", "(objectClass=inetOrgPerson)(mail=%s)"},
		{"string_filter", "(objectClass=inetOrgPerson)(uid=%s)"},
		{"cert_filter", "(userCertificate=*)(cn=%s)"},
		{"ca_filter", "(cACertificate=*)(cn=%s)"},
	} {
		key, value := d[0], d[1]
		if strings.HasSuffix(key, "_filter") {
			value = "(&" + filter + value + ")"
		}
		if err := s.set(key, value); err != nil {
			return err
		}
	}
	return nil
}

// Addresses returns host:port of the servers behind a table's source that are
// reached by TCP.
func Addresses(source, name string) ([]string, error) {
	var set *settings
	var err error
	if strings.Contains(source, "://") {
		set, err = parseURL(source, name)
	} else {
		set, err = readConf(source, name)
	}
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, s := range set.servers {
		if s.network() == "tcp" {
			addrs = append(addrs, s.addr)
		}
	}
	return addrs, nil
}
