package lookup

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// Options is what a Service is made of.
type Options struct {
	// Config is the configuration to serve. It must not change afterwards.
	Config *config.Config
	// Open opens the backend of a declared table. When it fails, the table's
	// questions are temporary errors, and it is called again later.
	Open func(ctx context.Context, t config.Table) (table.Backend, error)
	// Hostname is the server's name when the configuration gives none.
	Hostname string
	// Logger gets faults that have no better place. Nil discards them.
	Logger *slog.Logger
	// Resolver names peers by reverse DNS. Nil: no peer has a name.
	Resolver Resolver
	// Clock is the time for certificates and memos. Nil: time.Now.
	Clock func() time.Time
	// Roots are the trust anchors where no ca is configured. Nil: the system's,
	// loaded by New, before the process gives up the file system.
	Roots *x509.CertPool
	// OwnUID is the user id that the server runs as. Deliveries as that user
	// are reported as the server's own (-1).
	OwnUID int
	// Timeout bounds one question to a table. 0: table.DefaultTimeout.
	Timeout time.Duration
}

// Resolver is what Connect needs of DNS.
type Resolver interface {
	// Reverse names the peer at ip; fcrdns is "pass", "fail" or "error".
	Reverse(ctx context.Context, ip netip.Addr) (name, fcrdns string)
}

// Service implements Client on the tables, rules and keys of one configuration.
// It is safe for concurrent use.
type Service struct {
	cfg      *config.Config
	hostname string
	log      *slog.Logger
	resolver Resolver
	clock    func() time.Time
	ownUID   int
	delim    string

	tables  *registry
	rules   []rule
	actions map[string]*action
	custody *custody
	certs   *certStore
	anchors *anchors
	auth    *authenticator
	srs     *senders
}

var _ Client = (*Service)(nil)

// errUnknown is wrapped when a request names a listener or action that the
// configuration does not have.
var errUnknown = errors.New("not in the configuration")

// New opens the tables and prepares the rules. A table that cannot be opened is
// logged and tried again when it is asked; what the configuration itself gets
// wrong (a bad delivery template) is an error.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Config == nil || o.Open == nil {
		return nil, errors.New("lookup: no configuration or no way to open tables")
	}
	s := &Service{
		cfg: o.Config, log: o.Logger, resolver: o.Resolver, clock: o.Clock, ownUID: o.OwnUID,
		hostname: strings.ToLower(o.Config.Hostname), delim: o.Config.SMTP.SubAddrDelim,
		auth: newAuthenticator(),
	}
	s.defaults(o)
	s.certs = newCertStore(s.log, s.clock)
	s.custody = newCustody(newVault(s.cfg.Custody, s.certs.files, s.log))
	s.srs = newSenders(s)
	var err error
	if s.anchors, err = newAnchors(o.Roots); err != nil {
		s.log.Warn("system trust anchors cannot be loaded; only configured authorities are trusted", "error", err)
	}
	if s.tables, err = openTables(ctx, o, s.hostname, s.log); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Service) defaults(o Options) {
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.hostname == "" {
		s.hostname = strings.ToLower(o.Hostname)
	}
	if s.hostname == "" {
		s.hostname = "localhost"
	}
	if s.delim == "" {
		s.delim = "+"
	}
}

func (s *Service) prepare() error {
	s.actions = make(map[string]*action, len(s.cfg.Actions))
	for i := range s.cfg.Actions {
		a, err := s.newAction(&s.cfg.Actions[i])
		if err != nil {
			return err
		}
		s.actions[a.Name] = a
	}
	for i := range s.cfg.Matches {
		r, err := s.newRule(&s.cfg.Matches[i])
		if err != nil {
			return err
		}
		s.rules = append(s.rules, r)
	}
	return nil
}

// Close closes every table.
func (s *Service) Close() error { return s.tables.close() }

// listener returns the listener with an index that another process named.
func (s *Service) listener(i int) (*config.Listener, error) {
	if i < 0 || i >= len(s.cfg.Listeners) {
		return nil, fmt.Errorf("listener %d: %w", i, errUnknown)
	}
	return &s.cfg.Listeners[i], nil
}

// action returns the action with a name that another process gave.
func (s *Service) action(name string) (*action, error) {
	a, ok := s.actions[name]
	if !ok {
		return nil, fmt.Errorf("action %.100q: %w", name, errUnknown)
	}
	return a, nil
}

// Actions implements Local.
func (s *Service) Actions(context.Context) ([]ActionInfo, error) {
	infos := make([]ActionInfo, 0, len(s.cfg.Actions))
	for _, a := range s.cfg.Actions {
		infos = append(infos, ActionInfo{
			Name: a.Name, Relay: a.Method == config.MethodRelay, TTL: a.TTL,
			Host: a.Host != "" && !s.actions[a.Name].byDomain,
		})
	}
	return infos, nil
}
