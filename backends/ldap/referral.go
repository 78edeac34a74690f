package ldap

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// maxReferrals bounds how many servers one question may be sent on to.
const maxReferrals = 5

type hopsKey struct{}

// referralsOf returns the URLs in a referral result (RFC 4511, 4.1.10). Each
// leads to the same entries: the first is taken.
func referralsOf(err error) []string {
	var le *ldap.Error
	if !errors.As(err, &le) || le.Packet == nil || len(le.Packet.Children) < 2 {
		return nil
	}
	for _, c := range le.Packet.Children[1].Children {
		if c.Tag == 3 && len(c.Children) > 0 { // referral [3]
			return []string{c.Children[0].Data.String()}
		}
	}
	return nil
}

// chase asks the servers that others refer to, with the same name and password,
// over TLS when the table's own servers are asked so.
func (s *searcher) chase(ctx context.Context, urls []string, r *request) ([]*ldap.Entry, error) {
	hops, _ := ctx.Value(hopsKey{}).(int)
	ctx = context.WithValue(ctx, hopsKey{}, hops+1)
	if hops >= maxReferrals || len(urls) > maxReferrals {
		return nil, fmt.Errorf("%w: more than %d referrals", errReferral, maxReferrals)
	}
	var all []*ldap.Entry
	for _, u := range urls {
		entries, err := s.chaseOne(ctx, u, r)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errReferral, u, err)
		}
		all = append(all, entries...)
		if err := r.fits(all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *searcher) chaseOne(ctx context.Context, text string, r *request) ([]*ldap.Entry, error) {
	servers, rest, err := parseHosts(text)
	if err != nil {
		return nil, err
	}
	next := *r
	if parts := strings.Split(strings.TrimPrefix(rest, "/"), "?"); parts[0] != "" {
		if next.base, err = url.PathUnescape(parts[0]); err != nil {
			return nil, err
		}
		if len(parts) > 2 && parts[2] != "" {
			if next.scope, err = parseScope(parts[2]); err != nil {
				return nil, err
			}
		}
	}
	set := *s.set
	set.servers = servers
	set.startTLS = (s.set.startTLS || s.set.servers[0].scheme == "ldaps") && servers[0].scheme == "ldap"
	c, err := newDialer(&set).connect(ctx, true)
	if err != nil {
		return nil, err
	}
	defer c.kill()
	return s.on(ctx, c, &next)
}
