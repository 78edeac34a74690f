package ldap

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-ldap/ldap/v3"
)

const (
	// derefs is how many members are read side by side for one question.
	derefs = 16
	// uidsAtOnce is how many names go into one search.
	uidsAtOnce = 100
)

// groupClasses are entries that are no recipients themselves, even when nobody
// is in them.
var groupClasses = []string{"group", "groupofnames", "groupofuniquenames", "groupofmembers", "groupofurls", "posixgroup", "univentiongroup"}

// members returns what the members of groups give, and the members of groups
// that are members themselves. Who was met before is not asked again, so that
// groups may hold each other.
func (t *Table) members(ctx context.Context, top []*ldap.Entry) ([]string, error) {
	w := &groupWalk{t: t, g: t.set.groups, seen: make(map[string]bool)}
	for _, e := range top {
		w.isNew("dn:" + normal(e.DN))
		w.follow(e)
	}
	for depth := 0; len(w.dns)+len(w.uids) > 0; depth++ {
		if depth == w.g.depth {
			return nil, fmt.Errorf("groups are nested more than %d deep (alias_deref_depth)", w.g.depth)
		}
		if err := w.level(ctx); err != nil {
			return nil, err
		}
	}
	return w.values, nil
}

// groupWalk goes through groups level by level.
type groupWalk struct {
	t      *Table
	g      groups
	seen   map[string]bool
	met    int
	dns    []string // to be read next
	uids   []string // to be searched next
	values []string
}

func (w *groupWalk) isNew(id string) bool {
	if w.seen[id] {
		return false
	}
	w.seen[id] = true
	return true
}

// follow notes the members of an entry, and reports whether it has any.
func (w *groupWalk) follow(e *ldap.Entry) bool {
	found := false
	if w.g.dnAttr != "" {
		for _, dn := range rawValues(e, w.g.dnAttr) {
			found = true
			if w.isNew("dn:" + normal(dn)) {
				w.dns = append(w.dns, dn)
			}
		}
	}
	if w.g.uidAttr != "" {
		for _, uid := range rawValues(e, w.g.uidAttr) {
			found = true
			if w.isNew("uid:" + normal(uid)) {
				w.uids = append(w.uids, uid)
			}
		}
	}
	return found
}

func (w *groupWalk) level(ctx context.Context) error {
	w.met += len(w.dns) + len(w.uids)
	if w.met > w.g.max {
		return fmt.Errorf("more than %d members (alias_deref_limit)", w.g.max)
	}
	entries, err := w.read(ctx)
	if err != nil {
		return err
	}
	byUID, err := w.searchUIDs(ctx)
	if err != nil {
		return err
	}
	for _, e := range byUID {
		if w.isNew("dn:" + normal(e.DN)) {
			entries = append(entries, e)
		}
	}
	w.dns, w.uids = nil, nil
	for _, e := range entries {
		if w.follow(e) || isGroup(e) {
			continue
		}
		for _, a := range w.g.attrs {
			values, err := textValues(e, a)
			if err != nil {
				return err
			}
			w.values = append(w.values, values...)
		}
	}
	if len(w.values) > maxValues {
		return errTooLarge
	}
	return nil
}

func isGroup(e *ldap.Entry) bool {
	return slices.ContainsFunc(rawValues(e, "objectClass"), func(c string) bool {
		return slices.Contains(groupClasses, strings.ToLower(c))
	})
}

func (w *groupWalk) attrs() []string {
	attrs := append([]string{"objectClass"}, w.g.attrs...)
	for _, a := range []string{w.g.dnAttr, w.g.uidAttr} {
		if a != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}

// read reads the entries of DNs, in their order. One that is not there, or that
// alias_deref_filter leaves out, is no member.
func (w *groupWalk) read(ctx context.Context) ([]*ldap.Entry, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make([][]*ldap.Entry, len(w.dns))
	var wg sync.WaitGroup
	var once sync.Once
	var failure error
	slots := make(chan struct{}, derefs)
	for i, dn := range w.dns {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			var err error
			found[i], err = w.t.search.search(ctx, &request{base: dn, scope: ldap.ScopeBaseObject, filter: w.g.filter, attrs: w.attrs()})
			if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
				once.Do(func() {
					failure = fmt.Errorf("member %q: %w", dn, err)
					cancel()
				})
			}
		})
	}
	wg.Wait()
	if failure == nil && ctx.Err() != nil {
		failure = context.Cause(ctx)
	}
	return slices.Concat(found...), failure
}

// searchUIDs finds the entries of names, many in one search.
func (w *groupWalk) searchUIDs(ctx context.Context) ([]*ldap.Entry, error) {
	base := w.t.set.base
	for _, q := range w.t.set.lookup {
		if base == "" && q.name == "alias" {
			base = q.base
		}
	}
	var all []*ldap.Entry
	for uids := range slices.Chunk(w.uids, uidsAtOnce) {
		var b strings.Builder
		for _, uid := range uids {
			if f, ok := w.g.uidFilter.expand(uid); ok {
				b.WriteString(f)
			}
		}
		if b.Len() == 0 {
			continue
		}
		entries, err := w.t.search.search(ctx, &request{
			base: base, scope: w.t.set.scope, filter: "(&" + w.g.filter + "(|" + b.String() + "))", attrs: w.attrs(),
		})
		if err != nil {
			return nil, fmt.Errorf("members by name: %w", err)
		}
		all = append(all, entries...)
	}
	return all, nil
}
