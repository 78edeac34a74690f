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
	for depth := 0; len(w.dns)+len(w.uids)+len(w.urls) > 0; depth++ {
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
	urls   []string // that give members to be read next
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
	for _, attr := range w.g.urlAttrs {
		for _, u := range rawValues(e, attr) {
			found = true
			if w.isNew("url:" + u) {
				w.urls = append(w.urls, u)
			}
		}
	}
	return found
}

func (w *groupWalk) level(ctx context.Context) error {
	w.met += len(w.dns) + len(w.uids) + len(w.urls)
	if w.met > w.g.max {
		return w.tooMany()
	}
	members, err := w.next(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if w.follow(m.Entry) || isGroup(m.Entry) {
			continue
		}
		for _, a := range m.attrs {
			values, err := textValues(m.Entry, a)
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

func (w *groupWalk) tooMany() error {
	return fmt.Errorf("more than %d members (alias_deref_limit)", w.g.max)
}

// member is an entry, and which of its attributes count.
type member struct {
	*ldap.Entry
	attrs []string
}

// next returns the members that were noted, each once.
func (w *groupWalk) next(ctx context.Context) ([]member, error) {
	byDN, err := w.read(ctx)
	if err != nil {
		return nil, err
	}
	byUID, err := w.searchUIDs(ctx)
	if err != nil {
		return nil, err
	}
	byURL, err := w.searchURLs(ctx)
	if err != nil {
		return nil, err
	}
	w.dns, w.uids, w.urls = nil, nil, nil
	var members []member
	for _, e := range byDN {
		members = append(members, member{e, w.g.attrs})
	}
	for _, e := range byUID {
		byURL = append(byURL, member{e, w.g.attrs})
	}
	for _, m := range byURL {
		if w.isNew("dn:" + normal(m.DN)) {
			members = append(members, m)
		}
	}
	return members, nil
}

func isGroup(e *ldap.Entry) bool {
	return slices.ContainsFunc(rawValues(e, "objectClass"), func(c string) bool {
		return slices.Contains(groupClasses, strings.ToLower(c))
	})
}

func (w *groupWalk) attrs() []string {
	return slices.Concat([]string{"objectClass"}, w.g.attrs, w.g.naming())
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
	base := w.t.set.memberBase()
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
