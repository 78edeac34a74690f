package ldap

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Bounds of one answer.
const (
	maxValues  = 10_000
	maxBytes   = 10 << 20
	maxEntries = 10_000
	maxListed  = 1_000_000 // entries of a list that is fetched
)

var (
	errTooLarge = errors.New("answer is too large")
	errReferral = errors.New("the server refers to another one, and referrals is not on")
	errRange    = errors.New("a range of values ends early")
)

// request is one search.
type request struct {
	base   string
	scope  int
	filter string
	attrs  []string
	limit  int  // entries; 0: maxEntries
	some   bool // the first entry is all that matters
}

func (r *request) search(timeout time.Duration) *ldap.SearchRequest {
	size := 0
	if r.some {
		size = 1
	}
	attrs := r.attrs
	if len(attrs) == 0 {
		attrs = []string{"1.1"} // none (RFC 4511, 4.5.1.8)
	}
	return &ldap.SearchRequest{
		BaseDN: r.base, Scope: r.scope, DerefAliases: ldap.NeverDerefAliases, SizeLimit: size,
		TimeLimit: int(math.Ceil(timeout.Seconds())), Filter: r.filter, Attributes: attrs,
	}
}

// searcher runs searches on the pool's connections.
type searcher struct {
	set  *settings
	pool *pool
}

// search returns what the directory has. A connection that broke is replaced
// once: a server that was restarted is no error.
func (s *searcher) search(ctx context.Context, r *request) ([]*ldap.Entry, error) {
	for attempt := 0; ; attempt++ {
		c, err := s.pool.get(ctx)
		if err != nil {
			return nil, err
		}
		entries, err := s.on(ctx, c, r)
		switch {
		case err == nil || ctx.Err() != nil:
			s.pool.put(c)
			return entries, err
		case isNetwork(err):
			s.pool.drop(c)
		case elsewhere(err):
			c.server.failed.Store(time.Now().UnixNano())
			s.pool.drop(c)
		default:
			s.pool.put(c)
			return entries, err
		}
		if attempt == len(s.set.servers) {
			return nil, fmt.Errorf("%s: %w", c.server, err)
		}
	}
}

// on runs a search on a connection, in pages when the server gives no more than
// a part at once.
func (s *searcher) on(ctx context.Context, c *conn, r *request) ([]*ldap.Entry, error) {
	req := r.search(s.set.timeout)
	a, err := s.ask(ctx, c, req, r)
	if ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		if r.some && len(a.entries) > 0 {
			return a.entries, nil
		}
		if s.set.page > 0 && !r.some {
			return s.pages(ctx, c, r)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := s.complete(ctx, c, a.entries); err != nil {
		return nil, err
	}
	return a.entries, nil
}

// pages asks for page after page (RFC 2696).
func (s *searcher) pages(ctx context.Context, c *conn, r *request) ([]*ldap.Entry, error) {
	page := ldap.NewControlPaging(uint32(s.set.page))
	var all []*ldap.Entry
	for {
		req := r.search(s.set.timeout)
		req.Controls = []ldap.Control{page}
		a, err := s.ask(ctx, c, req, r)
		if err != nil {
			return nil, err
		}
		all = append(all, a.entries...)
		if err := r.fits(all); err != nil {
			return nil, err
		}
		next, _ := ldap.FindControl(a.controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if next == nil || len(next.Cookie) == 0 {
			return all, s.complete(ctx, c, all)
		}
		page.SetCookie(next.Cookie)
	}
}

// answer is what came back for one request.
type answer struct {
	entries   []*ldap.Entry
	referrals []string
	controls  []ldap.Control
}

// ask runs one request, no longer than ctx or the table's timeout.
func (s *searcher) ask(ctx context.Context, c *conn, req *ldap.SearchRequest, r *request) (answer, error) {
	timed, cancel := context.WithTimeoutCause(ctx, s.set.timeout, errTimeout)
	defer cancel()
	began := time.Now()
	type result struct {
		answer
		err error
	}
	done := make(chan result, 1)
	// The library's own waiting may outlast the context.
	go func() {
		a, err := collect(timed, c, req, r)
		done <- result{a, err}
	}()
	var res result
	select {
	case res = <-done:
	case <-timed.Done():
	}
	if timed.Err() != nil {
		c.gaveUp(began)
		return answer{}, fmt.Errorf("%s: %w", c.server, context.Cause(timed))
	}
	if urls := res.referrals; len(urls) > 0 && s.set.follow {
		more, err := s.chase(timed, urls, r)
		return answer{entries: append(res.entries, more...), controls: res.controls}, err
	}
	if ldap.IsErrorWithCode(res.err, ldap.LDAPResultReferral) {
		return answer{}, errReferral
	}
	return res.answer, res.err
}

// collect reads what a server sends. Its end is told from a connection that
// broke by looking at the connection: the library does not say.
func collect(ctx context.Context, c *conn, req *ldap.SearchRequest, r *request) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var a answer
	budget := r.budget()
	res := c.SearchAsync(ctx, req, 64)
	for res.Next() {
		if e := res.Entry(); e != nil {
			if err := budget.spend(e); err != nil {
				return answer{}, err
			}
			a.entries = append(a.entries, e)
		}
		if ref := res.Referral(); ref != "" {
			a.referrals = append(a.referrals, ref)
		}
		a.controls = append(a.controls, res.Controls()...)
	}
	err := res.Err()
	if ldap.IsErrorWithCode(err, ldap.LDAPResultReferral) {
		a.referrals = append(a.referrals, referralsOf(err)...)
	}
	if err == nil {
		err = c.broken()
	}
	return a, err
}

// broken returns an error when the library may have ended a search early.
func (c *conn) broken() error {
	if c.IsClosing() {
		return ldap.NewError(ldap.ErrorNetwork, errors.New("connection closed"))
	}
	if err := c.GetLastError(); err != nil && strings.Contains(err.Error(), "panic") {
		return ldap.NewError(ldap.ErrorNetwork, err)
	}
	return nil
}

// budget bounds an answer while it comes in.
type budget struct{ entries, values, bytes int }

func (r *request) budget() *budget {
	if r.limit > 0 {
		return &budget{r.limit, r.limit, 10 * maxBytes}
	}
	return &budget{maxEntries, maxValues + maxEntries, maxBytes}
}

func (b *budget) spend(e *ldap.Entry) error {
	b.entries--
	for _, a := range e.Attributes {
		b.values -= len(a.Values)
		for _, v := range a.Values {
			b.bytes -= len(v)
		}
	}
	if b.entries < 0 || b.values < 0 || b.bytes < 0 {
		return errTooLarge
	}
	return nil
}

func (r *request) fits(entries []*ldap.Entry) error {
	b := r.budget()
	for _, e := range entries {
		if err := b.spend(e); err != nil {
			return err
		}
	}
	return nil
}

// complete fetches the rest of attributes of which Active Directory gives only a
// range at once (member;range=0-1499).
func (s *searcher) complete(ctx context.Context, c *conn, entries []*ldap.Entry) error {
	values := 0
	for _, e := range entries {
		for i := 0; i < len(e.Attributes); i++ {
			a := e.Attributes[i]
			name, high, ranged := parseRange(a.Name)
			if !ranged {
				continue
			}
			a.Name = name
			for high >= 0 {
				r := &request{base: e.DN, scope: ldap.ScopeBaseObject, filter: "(objectClass=*)", attrs: []string{fmt.Sprintf("%s;range=%d-*", name, high+1)}}
				more, err := s.ask(ctx, c, r.search(s.set.timeout), r)
				if err != nil {
					return err
				}
				var got []string
				if got, high = rangeOf(more.entries, name); len(got) == 0 && high >= 0 {
					return fmt.Errorf("%s: %s: %w", e.DN, name, errRange)
				}
				a.Values = append(a.Values, got...)
				if values += len(got); values > maxValues {
					return errTooLarge
				}
			}
		}
	}
	return nil
}

// parseRange reads "name;range=LOW-HIGH"; high is -1 for the last part.
func parseRange(attr string) (name string, high int, ok bool) {
	name, r, ok := strings.Cut(attr, ";range=")
	if !ok {
		return attr, 0, false
	}
	_, text, ok := strings.Cut(r, "-")
	if text == "*" {
		return name, -1, ok
	}
	high, err := parseNumber(text, 0, math.MaxInt32)
	return name, high, ok && err == nil
}

func rangeOf(entries []*ldap.Entry, name string) ([]string, int) {
	for _, e := range entries {
		for _, a := range e.Attributes {
			if n, high, ok := parseRange(a.Name); ok && strings.EqualFold(n, name) {
				return a.Values, high
			}
		}
	}
	return nil, -1
}
