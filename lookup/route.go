package lookup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/internal/config"
	"tabard/internal/password"
	"tabard/table"
)

// Route implements Outbound. Everything is looked up at each call, so that a
// changed row applies to mail that is queued already.
//
// The hosts come from the first of: the action's `host`; the row of its
// `domain` table for the destination, its *.parent, or "*"; the row of its
// `sender` table for the reverse-path, its @domain, or "*". Without any, the
// destination's MXs apply. (OpenSMTPD defers when `domain` has no row.)
func (s *Service) Route(ctx context.Context, r RouteRequest) (Route, error) {
	if r.Explain {
		return s.explainRoute(ctx, r)
	}
	return s.route(ctx, r)
}

func (s *Service) route(ctx context.Context, r RouteRequest) (Route, error) {
	if len(r.Domain) > maxName || len(r.Sender) > maxAddress || len(r.Original) > maxAddress {
		return Route{}, errors.New("route: name too long")
	}
	if r.Action == "" {
		return Route{Helo: s.hostname}, nil
	}
	a, err := s.action(r.Action)
	if err != nil {
		return Route{}, err
	}
	if a.Method != config.MethodRelay {
		return Route{}, fmt.Errorf("%s: action %q is not a relay", a.Pos, a.Name)
	}
	route := Route{
		TLS: a.TLS, NoVerify: a.NoVerify, MailFrom: a.MailFrom,
		InsecureAuth: a.InsecureAuth, Handshake: a.Handshake,
		DKIM: a.dkim != nil, Present: a.PKIName != "" || a.PKITable != "",
	}
	if a.Backup {
		if route.BackupMX = a.BackupMX; route.BackupMX == "" {
			route.BackupMX = s.hostname
		}
	}
	// Without a row the destination's MXs apply, which may bounce: as final as a
	// refusal.
	route.Hosts, err = sure(ctx, func(hosts []RelayURL) bool { return len(hosts) == 0 },
		func(ctx context.Context) ([]RelayURL, error) { return s.routeHosts(ctx, a, r) })
	if err != nil {
		return Route{}, fmt.Errorf("action %q: %w", a.Name, err)
	}
	if a.SRS && route.MailFrom == "" {
		if route.MailFrom, err = s.srs.forward(&r); err != nil {
			return Route{}, fmt.Errorf("action %q: %w", a.Name, err)
		}
	}
	if err := s.routePolicies(ctx, a, &route, r.Domain); err != nil {
		return Route{}, fmt.Errorf("action %q: %w", a.Name, err)
	}
	if err := s.routeSource(ctx, a, &route); err != nil {
		return Route{}, fmt.Errorf("action %q: %w", a.Name, err)
	}
	return route, nil
}

func (s *Service) routeHosts(ctx context.Context, a *action, r RouteRequest) ([]RelayURL, error) {
	switch {
	case a.host != nil:
		return s.fetchHosts(ctx, a)
	case a.domain != nil:
		urls, err := s.lookupHosts(ctx, a.domain, table.RelayDomainKeys(r.Domain))
		if err != nil || urls != nil || a.sender == nil {
			return urls, err
		}
	}
	if a.sender != nil {
		return s.lookupHosts(ctx, a.sender, table.RelaySenderKeys(r.Sender, s.delim))
	}
	return nil, nil
}

// fetchHosts returns every host of the list: by priority and weight where such are
// given, else beginning with the next in turn.
func (s *Service) fetchHosts(ctx context.Context, a *action) ([]RelayURL, error) {
	relays, err := a.host.FetchRelayHosts(ctx)
	if err != nil {
		return nil, err
	}
	if len(relays) == 0 {
		return nil, fmt.Errorf("table %s: no relay host in it", a.host.Name())
	}
	ordered := slices.ContainsFunc(relays, table.Relay.Ordered)
	urls, err := s.relayURLs(a.host, "", relays)
	if slices.ContainsFunc(urls, RelayURL.ByDomain) && !a.byDomain {
		return nil, fmt.Errorf("table %s: a list of hosts for every domain cannot hold a URL that depends on the domain; use `domain` or `backup`", a.host.Name())
	}
	if ordered {
		return urls, err
	}
	return rotate(urls, &a.nextHost), err
}

// lookupHosts returns the hosts of the first key that has a row; nil when none
// has.
func (s *Service) lookupHosts(ctx context.Context, t *table.Table, keys []string) ([]RelayURL, error) {
	for _, key := range keys {
		relays, err := t.RelayHosts(ctx, key)
		if errors.Is(err, table.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return s.relayURLs(t, key, relays)
	}
	return nil, nil
}

// relayURLs parses URLs, in the order to try them now.
func (s *Service) relayURLs(t *table.Table, key string, relays []table.Relay) ([]RelayURL, error) {
	urls := make([]RelayURL, 0, len(relays))
	for _, r := range inOrder(relays) {
		u, err := s.cfg.Dialect.ParseRelayURL(r.URL)
		if err != nil {
			return nil, fmt.Errorf("table %s: relayhost %.300q: %w", t.Name(), key, err)
		}
		urls = append(urls, RelayURL{Scheme: Scheme(u.Scheme), Label: u.Label, Host: u.Host, Port: u.Port, MX: u.MX})
	}
	return urls, nil
}

// routeSource fills in the addresses to send from and the names to say.
func (s *Service) routeSource(ctx context.Context, a *action, route *Route) error {
	if route.Helo = a.Helo; route.Helo == "" {
		route.Helo = s.hostname
	}
	if a.src == nil {
		return nil
	}
	ips, err := a.src.FetchSources(ctx)
	if err != nil {
		return err
	}
	if len(ips) == 0 {
		return fmt.Errorf("table %s: no source address in it", a.src.Name())
	}
	for _, ip := range rotate(ips, &a.nextSource) {
		src := RouteSource{Address: ip.String(), Helo: route.Helo}
		if a.HeloSrc != "" {
			if src.Helo, err = s.addrName(ctx, a.HeloSrc, ip, s.hostname); err != nil {
				return err
			}
		}
		route.Sources = append(route.Sources, src)
	}
	route.Source, route.Helo = route.Sources[0].Address, route.Sources[0].Helo
	return nil
}

// RelayCredentials implements Outbound. The password column may begin with how it
// is to be used, in the form of password schemes: {XOAUTH2} before an OAuth 2.0
// access token, {PLAIN} before a password that is to be sent as it is. A row that holds a password hash is
// refused: it is somebody's login here, of no use for relaying, and mta must
// not see it.
func (s *Service) RelayCredentials(ctx context.Context, r CredentialsRequest) (Credentials, error) {
	a, err := s.action(r.Action)
	if err != nil {
		return Credentials{}, err
	}
	if a.auth == nil {
		return Credentials{}, fmt.Errorf("%s: action %q has no auth table for label %.100q", a.Pos, a.Name, r.Label)
	}
	if !sane(r.Label, maxName) {
		return Credentials{}, errors.New("relay credentials: bad label")
	}
	login, err := a.auth.Credentials(ctx, r.Label)
	if errors.Is(err, table.ErrNotFound) {
		return Credentials{}, fmt.Errorf("table %s: no credentials for label %.100q", a.auth.Name(), r.Label)
	}
	if err != nil {
		return Credentials{}, err
	}
	if token, ok := cutScheme(login.Password, "{XOAUTH2}"); ok {
		return a.usable(r.Label, Credentials{User: login.User, Token: token})
	}
	if plain, ok := cutScheme(login.Password, "{PLAIN}"); ok {
		return a.usable(r.Label, Credentials{User: login.User, Password: plain, Plain: true})
	}
	if password.Hashed(login.Password) {
		return Credentials{}, fmt.Errorf("table %s: label %.100q: the row holds a password hash, not a password", a.auth.Name(), r.Label)
	}
	return Credentials{User: login.User, Password: login.Password}, nil
}

// usable refuses a row with nothing behind its scheme.
func (a *action) usable(label string, c Credentials) (Credentials, error) {
	if c.Password+c.Token == "" {
		return Credentials{}, fmt.Errorf("table %s: label %.100q: nothing follows the scheme in braces", a.auth.Name(), label)
	}
	return c, nil
}

// cutScheme returns what follows a scheme in braces, whatever its case.
func cutScheme(password, scheme string) (rest string, ok bool) {
	if len(password) < len(scheme) || !strings.EqualFold(password[:len(scheme)], scheme) {
		return "", false
	}
	return password[len(scheme):], true
}
