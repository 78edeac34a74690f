package ldap

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"tabard/table"
)

// Controls that a server may offer, by their numbers.
const (
	oidSync       = "1.3.6.1.4.1.4203.1.9.1.1" // RFC 4533
	oidPersistent = "2.16.840.1.113730.3.4.3"  // draft-ietf-ldapext-psearch
)

const (
	// heartbeat is how often a quiet watch makes sure that the server is there.
	heartbeat = 15 * time.Second
	// maxRemembered bounds the entries whose last state is known.
	maxRemembered = 100_000
)

// Watch follows the entries that the table's queries can find: by RFC 4533
// (refreshAndPersist) where the server offers it, else by persistent search.
func (t *Table) Watch(ctx context.Context, changed func(table.Change)) error {
	c, err := t.search.pool.dialer.connect(ctx, true)
	if err != nil {
		return err
	}
	defer c.kill()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = c.wire.Close() })
	defer stop()
	root, err := t.readRoot(ctx, c)
	if err != nil {
		return err
	}
	w := &watcher{t: t, c: c, changed: changed, areas: t.areas(), last: make(map[string]uint64), seed: maphash.MakeSeed()}
	w.controls = root.GetEqualFoldAttributeValues("supportedControl")
	w.pending = len(w.areas)
	if w.pending == 0 {
		return fmt.Errorf("%w: no service is configured", table.ErrUnsupported)
	}
	var wg sync.WaitGroup
	for _, a := range w.areas {
		wg.Go(func() { cancel(fmt.Errorf("%s: watching %s: %w", c.server, a.base, w.follow(ctx, a, root))) })
	}
	wg.Go(func() { cancel(w.beat(ctx)) })
	wg.Wait()
	return context.Cause(ctx)
}

// readRoot reads what the server says of itself.
func (t *Table) readRoot(ctx context.Context, c *conn) (*ldap.Entry, error) {
	r := &request{scope: ldap.ScopeBaseObject, filter: "(objectClass=*)", attrs: []string{"supportedControl", "namingContexts"}}
	a, err := t.search.ask(ctx, c, r)
	if err == nil && len(a.entries) != 1 {
		err = errors.New("no root DSE")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.server, err)
	}
	return a.entries[0], nil
}

// area is a part of the directory that is followed by one search.
type area struct {
	base    string
	scope   int
	filter  string
	attrs   []string
	queries []*query
}

// areas puts queries of the same base and scope together.
func (t *Table) areas() []*area {
	var all []*area
	find := func(base string, scope int) *area {
		for _, a := range all {
			if strings.EqualFold(a.base, base) && a.scope == scope {
				return a
			}
		}
		a := &area{base: base, scope: scope}
		all = append(all, a)
		return a
	}
	for _, q := range t.set.queries() {
		a := find(q.base, q.scope)
		a.add(q, q.filter.any(), append(slices.Clone(t.want(q)), q.filter.root.attributes()...))
		if q == t.set.lookup[table.Alias] && t.set.groups.follows() {
			// Members may be anywhere: whatever changes may change a group.
			g := t.set.groups
			attrs, scope := slices.Concat(g.naming(), []string{"mail"}, g.attrs), t.set.scope
			if g.urlAttrs != nil {
				// So may any attribute that a URL could have in its filter.
				attrs, scope = append(attrs, "*", "memberOf"), ldap.ScopeWholeSubtree
			}
			find(t.set.memberBase(), scope).add(q, "(objectClass=*)", attrs)
		}
	}
	return all
}

func (a *area) add(q *query, filter string, attrs []string) {
	if !slices.Contains(a.queries, q) {
		a.queries = append(a.queries, q)
	}
	if a.filter == "" {
		a.filter = filter
	} else {
		a.filter = "(|" + a.filter + filter + ")"
	}
	for _, n := range attrs {
		n = strings.ToLower(baseName(n))
		if n != "" && !slices.Contains(a.attrs, n) {
			a.attrs = append(a.attrs, n)
		}
	}
}

// watcher turns entries that changed into changes of the table.
type watcher struct {
	t       *Table
	c       *conn
	changed func(table.Change)
	areas   []*area

	controls []string // that the server offers

	mu      sync.Mutex
	pending int // areas that are not followed yet
	last    map[string]uint64
	seed    maphash.Seed
}

// inForce notes that one more area is followed.
func (w *watcher) inForce() {
	w.mu.Lock()
	w.pending--
	all := w.pending == 0
	w.mu.Unlock()
	if all {
		w.changed(table.Change{})
	}
}

// follow returns when an area is followed no more. A server may offer a control
// that the database behind it does not have.
func (w *watcher) follow(ctx context.Context, a *area, root *ldap.Entry) error {
	for _, way := range []struct {
		oid    string
		follow func(context.Context, *area, *ldap.Entry) error
	}{{oidSync, w.sync}, {oidPersistent, w.persist}} {
		if !slices.Contains(w.controls, way.oid) {
			continue
		}
		err := way.follow(ctx, a, root)
		if !ldap.IsErrorWithCode(err, ldap.LDAPResultUnavailableCriticalExtension) {
			return err
		}
	}
	return fmt.Errorf("%w: neither RFC 4533 nor persistent search is offered", table.ErrUnsupported)
}

// sync follows an area by RFC 4533. It begins where the directory is now: what
// was before is read by questions, not by this.
func (w *watcher) sync(ctx context.Context, a *area, root *ldap.Entry) error {
	req := &ldap.SearchRequest{BaseDN: a.base, Scope: a.scope, DerefAliases: ldap.NeverDerefAliases, Filter: a.filter, Attributes: a.attrs}
	res := w.c.Syncrepl(ctx, req, 64, ldap.SyncRequestModeRefreshAndPersist, w.cookie(ctx, a, root), false)
	live := false
	for res.Next() {
		state, done, many := syncInfo(res.Controls())
		switch e := res.Entry(); {
		case many && live:
			for _, q := range a.queries {
				w.changed(table.Change{Service: q.service})
			}
		case e != nil && live:
			w.entry(a, e, state)
		case done && !live:
			live = true
			w.inForce()
		}
	}
	return ended(ctx, res.Err())
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		err = errors.New("the server ended it")
	}
	return err
}

// syncInfo returns the state of an entry, that the refresh is over, or that
// entries are meant which do not come themselves.
func syncInfo(controls []ldap.Control) (state ldap.ControlSyncStateState, done, many bool) {
	state = ldap.SyncStateModify
	for _, c := range controls {
		switch c := c.(type) {
		case *ldap.ControlSyncState:
			state = c.State
		case *ldap.ControlSyncInfo:
			many = c.SyncIdSet != nil
			done = c.RefreshDelete != nil && c.RefreshDelete.RefreshDone || c.RefreshPresent != nil && c.RefreshPresent.RefreshDone
		}
	}
	return state, done, many
}

// cookie makes OpenLDAP's cookie for the present state, so that it need not send
// every entry first. Another server gets none, and sends them.
func (w *watcher) cookie(ctx context.Context, a *area, root *ldap.Entry) []byte {
	for _, suffix := range root.GetEqualFoldAttributeValues("namingContexts") {
		if !below(a.base, suffix) {
			continue
		}
		r := &request{base: suffix, scope: ldap.ScopeBaseObject, filter: "(objectClass=*)", attrs: []string{"contextCSN"}}
		got, err := w.t.search.ask(ctx, w.c, r)
		if err != nil || len(got.entries) != 1 {
			return nil
		}
		if csn := got.entries[0].GetEqualFoldAttributeValues("contextCSN"); len(csn) > 0 {
			return []byte("rid=000,csn=" + strings.Join(csn, ";"))
		}
	}
	return nil
}

// below reports whether a DN is base or below it.
func below(dn, base string) bool {
	d, err := ldap.ParseDN(dn)
	b, berr := ldap.ParseDN(base)
	return err == nil && berr == nil && (b.EqualFold(d) || b.AncestorOfFold(d))
}

// persist follows an area by persistent search.
func (w *watcher) persist(ctx context.Context, a *area, _ *ldap.Entry) error {
	value := ber.NewSequence("PersistentSearch")
	value.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 1|2|4|8, "changeTypes"))
	value.AppendChild(ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, true, "changesOnly"))
	value.AppendChild(ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, false, "returnECs"))
	control := ldap.NewControlString(oidPersistent, true, string(value.Bytes()))
	req := &ldap.SearchRequest{
		BaseDN: a.base, Scope: a.scope, DerefAliases: ldap.NeverDerefAliases, Filter: a.filter, Attributes: a.attrs, Controls: []ldap.Control{control},
	}
	res := w.c.SearchAsync(ctx, req, 64)
	// Nothing says that it has begun. An answer to what was asked later does, by
	// the same way: our own searches would overtake it.
	go func() {
		if w.answers(ctx) {
			w.inForce()
		}
	}()
	for res.Next() {
		if e := res.Entry(); e != nil {
			w.entry(a, e, ldap.SyncStateModify)
		}
	}
	return ended(ctx, res.Err())
}

// answers reports whether the server answers a search of the library's.
func (w *watcher) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, w.t.set.timeout)
	defer cancel()
	res := w.c.SearchAsync(ctx, &ldap.SearchRequest{Scope: ldap.ScopeBaseObject, Filter: "(objectClass=*)", Attributes: []string{"1.1"}}, 1)
	for res.Next() { // what it answers does not matter
		continue
	}
	return res.Err() == nil && ctx.Err() == nil && w.c.ended() == nil
}

// entry reports an entry that changed. What it was before is not known: a new
// one names the keys that it answers, another the services that could have had
// it. Changes of what no query reads, as of the time of a login, are none.
func (w *watcher) entry(a *area, e *ldap.Entry, state ldap.ControlSyncStateState) {
	if state == ldap.SyncStatePresent || !w.differs(a, e, state) {
		return
	}
	for _, q := range a.queries {
		var keys []string
		told := false
		if state == ldap.SyncStateAdd {
			keys, told = w.keys(q, e)
		}
		if !told {
			w.changed(table.Change{Service: q.service})
		}
		for _, k := range keys {
			w.changed(table.Change{Service: q.service, Key: k})
		}
	}
}

// differs reports whether an entry is other than it was when it came last.
func (w *watcher) differs(a *area, e *ldap.Entry, state ldap.ControlSyncStateState) bool {
	id := normal(a.base) + "\x00" + normal(e.DN)
	w.mu.Lock()
	defer w.mu.Unlock()
	if state == ldap.SyncStateDelete {
		delete(w.last, id)
		return true
	}
	var h maphash.Hash
	h.SetSeed(w.seed)
	for _, at := range e.Attributes {
		h.WriteString(strings.ToLower(at.Name))
		for _, v := range at.Values {
			h.WriteString("\x00" + v)
		}
		h.WriteString("\x00\x00")
	}
	sum := h.Sum64()
	if was, ok := w.last[id]; ok && was == sum {
		return false
	}
	if len(w.last) >= maxRemembered {
		clear(w.last)
	}
	w.last[id] = sum
	return true
}

// keys returns the keys for which a query finds an entry. ok is false when that
// cannot be told.
func (w *watcher) keys(q *query, e *ldap.Entry) (keys []string, ok bool) {
	if table.Walked(q.service) || q != w.t.set.lookup[q.service] || q.filter.tell == nil || q.service == table.Alias && w.t.set.groups.follows() {
		return nil, false
	}
	for _, n := range q.filter.tell.assertions() {
		if !n.value.keyed() {
			continue
		}
		if !n.value.invertible() {
			return nil, false
		}
		for _, v := range rawValues(e, n.attr) {
			if !plain(v) {
				return nil, false
			}
			if k, ok := n.value.invert(v); ok {
				keys = append(keys, table.Fold(k))
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), true
}

// beat returns when the server does not answer any more.
func (w *watcher) beat(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(heartbeat):
		}
		if _, err := w.t.readRoot(ctx, w.c); err != nil {
			return err
		}
	}
}
