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

	members int // how many members of a group may be found; 0: it is no list of members

	encoded []byte              // the filter as it goes to the server; nil: filter tells
	page    *ldap.ControlPaging // nil: everything at once
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
	a, err := s.ask(ctx, c, r)
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
	paged := *r
	paged.page = ldap.NewControlPaging(uint32(s.set.page))
	var all []*ldap.Entry
	for {
		a, err := s.ask(ctx, c, &paged)
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
		paged.page.SetCookie(next.Cookie)
	}
}

// answer is what came back for one request.
type answer struct {
	entries   []*ldap.Entry
	referrals []string
	controls  []ldap.Control
}

// exchange is a search on its way. Until done is closed it belongs to who reads
// the connection.
type exchange struct {
	answer
	err    error
	budget *budget
	done   chan struct{}

	id     int
	broken bool // the connection ended first; nothing else of it counts
}

// take takes a message of the answer, and reports whether it is the last one. ok
// is false when it is none of a search.
func (x *exchange) take(message string) (last, ok bool) {
	r, ok := parseResponse(message)
	if !ok {
		return false, false
	}
	x.controls = append(x.controls, r.controls...)
	switch r.op.tag {
	case opEntry:
		e, ok := parseEntry(r.op.body)
		if !ok {
			return false, false
		}
		x.entries = append(x.entries, e)
		x.err = x.budget.spend(e)
		return x.err != nil, true
	case opReference:
		// All of its URLs lead to the same entries.
		url, _, ok := want(r.op.body, tagOctets)
		x.referrals = append(x.referrals, url)
		return false, ok
	case opDone:
		x.err = parseDone(message, r.op)
		if ldap.IsErrorWithCode(x.err, ldap.LDAPResultReferral) {
			x.referrals = append(x.referrals, referralsOf(x.err)...)
		}
		return true, true
	}
	return false, false
}

// ask runs one request, no longer than ctx or the table's timeout.
func (s *searcher) ask(ctx context.Context, c *conn, r *request) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.set.timeout, errTimeout)
	defer cancel()
	began := time.Now()
	x := &exchange{budget: r.budget(), done: make(chan struct{})}
	err := s.send(ctx, c, r, x)
	if err == nil {
		select {
		case <-x.done:
		case <-ctx.Done():
		}
	}
	switch given := c.wire.end(x); {
	case given && ctx.Err() != nil:
		c.gaveUp(began)
		c.wire.abandon(x)
		return answer{}, fmt.Errorf("%s: %w", c.server, context.Cause(ctx))
	case x.broken:
		return answer{}, c.wire.broken()
	case err != nil:
		return answer{}, err
	case errors.Is(x.err, errTooLarge):
		c.wire.abandon(x)
		return answer{}, x.err
	case len(x.referrals) > 0 && s.set.follow:
		more, err := s.chase(ctx, x.referrals, r)
		return answer{entries: append(x.entries, more...), controls: x.controls}, err
	case ldap.IsErrorWithCode(x.err, ldap.LDAPResultReferral):
		return answer{}, errReferral
	}
	return x.answer, x.err
}

// send puts a question to the server.
func (s *searcher) send(ctx context.Context, c *conn, r *request, x *exchange) error {
	filter := r.encoded
	if filter == nil {
		var err error
		if filter, err = compile(r.filter); err != nil {
			return err
		}
	}
	if err := c.wire.begin(x); err != nil {
		return err
	}
	seconds := int(math.Ceil(s.set.timeout.Seconds()))
	return c.wire.send(ctx, func(e *encoder) { e.search(x.id, r, filter, seconds) })
}

// budget bounds an answer while it comes in.
type budget struct{ entries, values, bytes int }

func (r *request) budget() *budget {
	if r.limit > 0 {
		return &budget{r.limit, r.limit, 10 * maxBytes}
	}
	if r.members > 0 {
		return &budget{r.members, maxValues + 10*r.members, maxBytes}
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
				more, err := s.ask(ctx, c, r)
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
