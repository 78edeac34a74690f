// Package table defines the table service: what can be asked (services), what
// an answer looks like (rows and typed values), and what a provider of answers
// must do (Backend).
//
// Every lookup has three outcomes: found, not found, or error. An error is
// temporary everywhere: 451 in SMTP, deferral in the queue, never "not found".
package table

import (
	"context"
	"errors"
	"fmt"
)

// Service says what is asked of a table. The numeric values never leave the
// process; on the wire and in configurations a service goes by its name.
type Service uint8

// The services of the table abstraction; the comment gives key and answer.
const (
	Alias       Service = iota + 1 // user, user@domain, @domain: expansion nodes
	Domain                         // a domain name: is it in the list
	Credentials                    // user name or relay label: user and password (hash, or clear for relaying)
	Auth                           // user and password: yes or no
	NetAddr                        // IP address or "local": is it in the list
	UserInfo                       // user name: uid, gid, home
	Source                         // (fetch): addresses to send from
	MailAddr                       // user@domain, "@" for the null sender: is it in the list
	AddrName                       // IP address: host name for banner or EHLO
	MailAddrMap                    // user: addresses the user may send as
	RelayHost                      // (fetch), or a destination domain or sender: relay URLs
	String                         // the subject: is it in the list
	Regex                          // the subject: does one of the listed patterns match
	Cert                           // server name: certificate chain and private key
	CA                             // ca name: trust anchors (PEM bundle)
	CertAuth                       // identity of a verified client certificate: user name
	TLSPolicy                      // destination domain: policy text
	DKIM                           // signing domain: selector and private key
	Config                         // name: configuration text
)

var serviceNames = [...]string{
	Alias: "alias", Domain: "domain", Credentials: "credentials", Auth: "auth",
	NetAddr: "netaddr", UserInfo: "userinfo", Source: "source", MailAddr: "mailaddr",
	AddrName: "addrname", MailAddrMap: "mailaddrmap", RelayHost: "relayhost",
	String: "string", Regex: "regex", Cert: "cert", CA: "ca", CertAuth: "certauth",
	TLSPolicy: "tlspolicy", DKIM: "dkim", Config: "config",
}

// String returns the service's name as configurations, table programs and the
// command line spell it.
func (s Service) String() string {
	if s > 0 && int(s) < len(serviceNames) {
		return serviceNames[s]
	}
	return fmt.Sprintf("service(%d)", uint8(s))
}

// ParseService returns the service called name.
func ParseService(name string) (Service, error) {
	for i, n := range serviceNames {
		if n != "" && n == name {
			return Service(i), nil
		}
	}
	return 0, fmt.Errorf("unknown table service %q", name)
}

// Services returns every service, in declaration order.
func Services() []Service {
	all := make([]Service, 0, len(serviceNames)-1)
	for i := 1; i < len(serviceNames); i++ {
		all = append(all, Service(i))
	}
	return all
}

// Row is one answer: columns of text, in the order that the service's parser
// expects. A backend that stores one text per key returns one column, which the
// parser splits; a backend with columns returns them apart. NULL is the empty
// string.
type Row []string

// ErrNotFound means that the table has no answer for the key. Every other
// error of a Backend is temporary.
var ErrNotFound = errors.New("not found")

// ErrUnsupported means that a backend cannot carry a service at all. It is a
// configuration fault, found by check; at run time it is a temporary error.
var ErrUnsupported = errors.New("service not supported by this kind of table")

// Backend answers questions for one declared table. It is safe for concurrent
// use, blocks until ctx ends at the latest, and stays dumb: keys arrive
// normalised (see Table), and rows leave unparsed.
type Backend interface {
	// Lookup returns the row stored for key exactly (no walking of wildcards,
	// tags or parent domains: that is the caller's order of keys), ErrNotFound,
	// or a temporary error. Services with several rows for a key (alias,
	// mailaddrmap, relayhost) return them as several columns of one Row.
	Lookup(ctx context.Context, s Service, key string) (Row, error)
	// Check reports whether key is in the table by the matching rules of the
	// service: wildcards for domain, CIDR for netaddr, parts for mailaddr,
	// patterns for regex, equality otherwise.
	Check(ctx context.Context, s Service, key string) (bool, error)
	// Fetch returns all rows of a service that is a list: source, relayhost,
	// and those that are matched by walking, in a stable order.
	Fetch(ctx context.Context, s Service) ([]Row, error)
	// Close releases connections and watchers. No call follows it.
	Close() error
}

// Change names what a Watcher saw change. The zero Key means every key of the
// service, the zero Service every service of the table.
type Change struct {
	Service Service
	Key     string
}

// Watcher is implemented by backends that learn of changes at their source.
type Watcher interface {
	// Watch calls changed for each change until ctx ends. Its first call, with
	// the zero Change, says that the watch is in force: from then on no change
	// goes unnoticed. It returns an error when notifications may have been lost;
	// the caller then treats the whole table as changed and watches anew.
	// ErrUnsupported means that this source never tells: answers can only be
	// believed for a while. changed is quick and may be called concurrently.
	Watch(ctx context.Context, changed func(Change)) error
}

// Authenticator is implemented by backends that judge passwords themselves
// (service auth): a bind to a directory, a program, a query.
type Authenticator interface {
	// Authenticates reports whether this table is set up to judge passwords.
	// When it is not, credentials are looked up instead. A program is only known
	// once it runs: an error is temporary.
	Authenticates(ctx context.Context) (bool, error)
	// Authenticate reports whether password is the user's. Unknown users and
	// wrong passwords are false; every error is temporary.
	Authenticate(ctx context.Context, user, password string) (bool, error)
}
