package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-ldap/ldap/v3"

	"tabard/table/gather"
)

// asker asks one query for keys, several in one search where it can tell the
// entries apart.
type asker struct {
	t      *Table
	q      *query
	attrs  []string
	apart  []string // with what tells entries apart
	gather *gather.Gatherer[[]string, [][]*ldap.Entry]
	alone  atomic.Bool // the directory does not show what tells them apart
}

// maxGathered is how many questions share a search.
const maxGathered = 64

func newAsker(t *Table, q *query) *asker {
	a := &asker{t: t, q: q, attrs: t.want(q)}
	a.apart = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(a.attrs), q.filter.tell.attributes()...))))
	a.gather = gather.New(a.ask, gather.Options{Lanes: searchConns, Max: maxGathered, Timeout: t.set.timeout})
	return a
}

// entries returns what the filter finds for a key.
func (a *asker) entries(ctx context.Context, key string) ([]*ldap.Entry, error) {
	if a.gathers(key) {
		found, err := a.gather.Do(ctx, []string{key})
		if err != nil {
			return nil, err
		}
		return found[0], nil
	}
	return a.find(ctx, []string{key}, a.attrs, false)
}

// exists reports whether the filter finds anything for one of the keys.
func (a *asker) exists(ctx context.Context, keys []string) (bool, error) {
	if a.gathers(keys...) {
		found, err := a.gather.Do(ctx, keys)
		return slices.ContainsFunc(found, func(e []*ldap.Entry) bool { return len(e) > 0 }), err
	}
	found, err := a.find(ctx, keys, nil, true)
	return len(found) > 0, err
}

// gathers reports whether keys may be asked together with others: those in which
// a server's rules of comparison and ours could differ are asked alone.
func (a *asker) gathers(keys ...string) bool {
	if a.q.filter.tell == nil || a.alone.Load() {
		return false
	}
	return !slices.ContainsFunc(keys, func(k string) bool { return !plain(k) })
}

// plain reports whether text is ASCII without blanks at its ends or side by side.
func plain(s string) bool { return s != "" && tidy(s) }

// blanked reports whether a key has blanks that a directory would not see (RFC
// 4518, 2.6.1): it would answer for another one.
func blanked(s string) bool { return !tidy(s) && strings.Join(strings.Fields(s), " ") != s }

// find runs one search for any of the keys.
func (a *asker) find(ctx context.Context, keys []string, attrs []string, some bool) ([]*ldap.Entry, error) {
	keys = slices.DeleteFunc(slices.Clone(keys), blanked)
	f, n, err := a.q.filter.encodeAny(keys)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, a.t.open()
	}
	return a.t.search.search(ctx, &request{base: a.q.base, scope: a.q.scope, encoded: f, attrs: attrs, some: some})
}

// ask answers questions that wait at the same moment: each is a list of keys,
// and its answer the entries for each key.
func (a *asker) ask(ctx context.Context, questions [][]string) ([][][]*ldap.Entry, error) {
	if len(questions) == 1 {
		keys := questions[0]
		found := make([][]*ldap.Entry, len(keys))
		var err error
		// Of several keys, only whether there is anything is asked.
		found[0], err = a.find(ctx, keys, a.attrs, len(keys) > 1)
		return [][][]*ldap.Entry{found}, err
	}
	var keys []string
	for _, q := range questions {
		keys = append(keys, q...)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	entries, err := a.find(ctx, keys, a.apart, false)
	if err != nil {
		if errors.Is(err, errTooLarge) || ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) || ldap.IsErrorWithCode(err, ldap.LDAPResultAdminLimitExceeded) {
			err = fmt.Errorf("%w: %w", gather.ErrSplit, err)
		}
		return nil, err
	}
	byKey, err := a.assign(entries, keys)
	if err != nil {
		return nil, err
	}
	all := make([][][]*ldap.Entry, len(questions))
	for i, q := range questions {
		all[i] = make([][]*ldap.Entry, len(q))
		for j, k := range q {
			all[i][j] = byKey[k]
		}
	}
	return all, nil
}

// assign gives each entry to the keys that it was found for. In doubt the keys
// are asked one at a time.
func (a *asker) assign(entries []*ldap.Entry, keys []string) (map[string][]*ldap.Entry, error) {
	byKey := make(map[string][]*ldap.Entry, len(keys))
	candidates, told := a.candidates(keys), a.q.filter.tell.attributes()
	for _, e := range entries {
		hits, doubt := 0, false
		values := func(attr string) []string { return rawValues(e, attr) }
		for _, attr := range told {
			doubt = doubt || slices.ContainsFunc(values(attr), func(v string) bool { return !ascii(v) })
		}
		inexact := false
		for _, k := range candidates(e) {
			if ok, exact := a.q.filter.tell.holds(k, values); ok {
				byKey[k] = append(byKey[k], e)
				hits++
				inexact = inexact || !exact
			}
		}
		if hits == 0 {
			a.alone.Store(true)
		}
		if doubt || hits == 0 || hits > 1 && inexact {
			return nil, fmt.Errorf("%w: %s fits %d keys", gather.ErrSplit, e.DN, hits)
		}
	}
	return byKey, nil
}

// candidates returns a function that gives the keys worth holding against an
// entry: where values tell the key, those that its values tell, else all.
func (a *asker) candidates(keys []string) func(e *ldap.Entry) []string {
	leaves := a.q.filter.tell.assertions()
	if slices.ContainsFunc(leaves, func(n *node) bool { return !n.value.invertible() }) {
		return func(*ldap.Entry) []string { return keys }
	}
	byValue := make(map[string][]string, len(keys))
	for _, k := range keys {
		byValue[normal(k)] = append(byValue[normal(k)], k)
	}
	return func(e *ldap.Entry) []string {
		var found []string
		for _, n := range leaves {
			for _, v := range rawValues(e, n.attr) {
				if k, ok := n.value.invert(normal(v)); ok {
					found = append(found, byValue[normal(k)]...)
				}
			}
		}
		slices.Sort(found)
		return slices.Compact(found)
	}
}

func ascii(s string) bool {
	for _, c := range []byte(s) {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
