package ldap

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// bindConns is how many passwords are tried at a time.
const bindConns = 4

// Authenticates reports whether passwords are tried by a bind.
func (t *Table) Authenticates(context.Context) (bool, error) { return t.set.auth.bind, nil }

// Authenticate reports whether the directory takes the password for the user's
// entry. An empty password is never tried: a server takes it for nobody's and
// says yes (RFC 4513, 5.1.2).
func (t *Table) Authenticate(ctx context.Context, user, password string) (bool, error) {
	if err := t.open(); err != nil {
		return false, err
	}
	if user == "" || password == "" || blanked(user) {
		return false, nil
	}
	if t.set.auth.filter == nil {
		dn, ok := t.set.auth.dn.fill(user, ldap.EscapeDN)
		if !ok {
			return false, nil
		}
		return t.bind(ctx, dn, password, true)
	}
	dn, err := t.findUser(ctx, user)
	if err != nil {
		return false, err
	}
	if dn == "" {
		if err := t.binder.pretend(ctx, user); err != nil {
			return false, fmt.Errorf("auth bind: %w", err)
		}
		return false, nil
	}
	return t.bind(ctx, dn, password, false)
}

// accountAttrs say whether an account may be used: Active Directory's flags, and
// the lock of 389 Directory Server and FreeIPA.
var accountAttrs = []string{"userAccountControl", "nsAccountLock"}

// accountDisable is ADS_UF_ACCOUNTDISABLE.
const accountDisable = 2

func disabled(e *ldap.Entry) bool {
	for _, v := range rawValues(e, accountAttrs[0]) {
		if flags, err := strconv.ParseInt(v, 10, 64); err != nil || flags&accountDisable != 0 {
			return true
		}
	}
	for _, v := range rawValues(e, accountAttrs[1]) {
		if strings.EqualFold(v, "true") {
			return true
		}
	}
	return false
}

// findUser returns the DN of a user whose account may be used, or nothing.
func (t *Table) findUser(ctx context.Context, user string) (string, error) {
	a := &t.set.auth
	f, ok := a.filter.expand(user)
	if !ok {
		return "", nil
	}
	entries, err := t.search.search(ctx, &request{base: a.base, scope: a.scope, filter: f, attrs: accountAttrs})
	if err != nil {
		return "", fmt.Errorf("auth_filter: %w", err)
	}
	switch len(entries) {
	case 0:
		return "", t.hopeless(ctx, &query{name: "auth", filter: a.filter})
	case 1:
		// The root's DN is empty, and a bind as that is nobody's.
		if disabled(entries[0]) {
			return "", nil
		}
		return entries[0].DN, nil
	}
	return "", fmt.Errorf("auth_filter: %d entries, and which is the user's cannot be told", len(entries))
}

// bind tries a password, and looks at the account as its owner when look is
// true.
func (t *Table) bind(ctx context.Context, dn, password string, look bool) (bool, error) {
	c, release, err := t.binder.bind(ctx, dn, password)
	if err != nil {
		if refused(err) {
			return false, nil
		}
		return false, fmt.Errorf("auth bind: %w", err)
	}
	defer release()
	if !look {
		return true, nil
	}
	r := &request{base: dn, scope: ldap.ScopeBaseObject, filter: "(objectClass=*)", attrs: accountAttrs}
	a, err := t.search.ask(ctx, c, r)
	switch {
	case err == nil && len(a.entries) == 1:
		return !disabled(a.entries[0]), nil
	case err == nil || ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInsufficientAccessRights):
		return true, nil // the server lets nobody see, and took the password
	}
	return false, fmt.Errorf("auth bind: %w", err)
}

// refused reports whether a bind's error means that password and user do not fit
// or that the account is locked, not that the server cannot say.
func refused(err error) bool {
	return ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInappropriateAuthentication,
		ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultConstraintViolation, ldap.LDAPResultInvalidDNSyntax)
}

// binder keeps connections on which passwords are tried, apart from those for
// searches: a bind changes who a connection is.
type binder struct {
	dialer *dialer
	slots  chan struct{}
	times  bindTimes

	mu     sync.Mutex
	idle   []*conn
	closed bool
}

func newBinder(d *dialer) *binder {
	return &binder{dialer: d, slots: make(chan struct{}, bindConns), times: bindTimes{seed: maphash.MakeSeed()}}
}

// patience bounds a bind with the wait for its turn.
func (b *binder) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, 2*b.dialer.set.timeout, errTimeout)
}

// enter waits for one's turn; leave ends it.
func (b *binder) enter(ctx context.Context) error {
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *binder) leave() { <-b.slots }

// bind returns a connection that is bound as dn; release gives it back.
func (b *binder) bind(ctx context.Context, dn, password string) (c *conn, release func(), err error) {
	ctx, cancel := b.patience(ctx)
	defer cancel()
	if err := b.enter(ctx); err != nil {
		return nil, nil, err
	}
	for {
		c, fresh, err := b.take(ctx)
		if err != nil {
			b.leave()
			return nil, nil, err
		}
		began := time.Now()
		err = tryBind(ctx, c, dn, password)
		if err == nil || refused(err) {
			b.times.add(time.Since(began))
		}
		if err == nil {
			return c, func() { b.give(c) }, nil
		}
		if !isNetwork(err) {
			b.give(c)
			return nil, nil, err
		}
		c.kill()
		if fresh || ctx.Err() != nil {
			b.leave()
			return nil, nil, fmt.Errorf("%s: %w", c.server, err)
		}
	}
}

// tryBind ends with ctx, which takes the connection along.
func tryBind(ctx context.Context, c *conn, dn, password string) error {
	if dn == "" || password == "" {
		return errors.New("anonymous bind")
	}
	stop := context.AfterFunc(ctx, func() { _ = c.wire.Close() })
	defer stop()
	return inTime(ctx, c.Bind(dn, password))
}

// take returns a connection that is kept, or a new one.
func (b *binder) take(ctx context.Context) (c *conn, fresh bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, false, errClosed
	}
	for len(b.idle) > 0 {
		c := b.idle[len(b.idle)-1]
		b.idle = b.idle[:len(b.idle)-1]
		if !c.lost(patience) {
			return c, false, nil
		}
		c.kill()
	}
	b.mu.Unlock()
	c, err = b.dialer.connect(ctx, false)
	b.mu.Lock()
	return c, true, err
}

// give takes a connection back.
func (b *binder) give(c *conn) {
	b.mu.Lock()
	if b.closed {
		c.kill()
	} else {
		b.idle = append(b.idle, c)
	}
	b.mu.Unlock()
	b.leave()
}

func (b *binder) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, c := range b.idle {
		c.kill()
	}
	b.idle = nil
}
