// Package static answers from lists and mappings that are written in the
// configuration. It is also the memory of tables of kind file.
package static

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"tabard/internal/config"
	"tabard/table"
)

// Open returns the table that a configuration wrote inline.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	if len(c.List) > 0 && len(c.Map) > 0 {
		return nil, fmt.Errorf("static table %s is a list and a mapping at once", c.Name)
	}
	if len(c.Map) > 0 {
		return NewMap(c.Map, o), nil
	}
	return NewList(c.List, o), nil
}

// Table is an immutable list or mapping. Keys compare without regard to case,
// except that patterns keep theirs; of duplicate keys the last one counts.
// Fetching goes in sorted order of keys.
type Table struct {
	mapping bool
	entries []entry        // sorted by folded key, without duplicates
	raw     []string       // every key as written, for patterns
	index   map[string]int // folded key to its place in entries
	delim   string         // smtp sub-addr-delim
	closed  atomic.Bool
	mu      sync.Mutex                 // guards built
	built   map[table.Service]*matcher // made when first asked
}

type entry struct {
	folded string
	config.KeyVal
}

// matcher is made once, by whoever asks first.
type matcher struct {
	once sync.Once
	m    table.Matcher
	err  error
}

var (
	_ table.Backend   = (*Table)(nil)
	_ table.Validator = (*Table)(nil)
)

// NewList returns a table that is a list.
func NewList(list []string, o table.Options) *Table {
	pairs := make([]config.KeyVal, len(list))
	for i, e := range list {
		pairs[i] = config.KeyVal{Key: e}
	}
	return newTable(pairs, false, o)
}

// NewMap returns a table that is a mapping.
func NewMap(pairs []config.KeyVal, o table.Options) *Table { return newTable(pairs, true, o) }

func newTable(pairs []config.KeyVal, mapping bool, o table.Options) *Table {
	t := &Table{
		mapping: mapping, delim: o.Delimiter(),
		index: make(map[string]int, len(pairs)), built: make(map[table.Service]*matcher),
	}
	for _, p := range pairs {
		t.raw = append(t.raw, p.Key)
		k := table.Fold(p.Key)
		if i, ok := t.index[k]; ok {
			t.entries[i].KeyVal = p
			continue
		}
		t.index[k] = len(t.entries)
		t.entries = append(t.entries, entry{k, p})
	}
	slices.SortFunc(t.entries, func(a, b entry) int { return cmp.Compare(a.folded, b.folded) })
	for i, e := range t.entries {
		t.index[e.folded] = i
	}
	return t
}

// Lookup returns the value of key as one column. In a list only the services
// that ask for membership have answers: the entry itself.
func (t *Table) Lookup(ctx context.Context, s table.Service, key string) (table.Row, error) {
	if err := t.carries(ctx, s); err != nil {
		return nil, err
	}
	if !t.mapping && !isMembership(s) {
		return nil, fmt.Errorf("%w: a list has no values", table.ErrUnsupported)
	}
	i, ok := t.index[table.Fold(key)]
	if !ok {
		return nil, table.ErrNotFound
	}
	if !t.mapping {
		return table.Row{t.entries[i].Key}, nil
	}
	return table.Row{t.entries[i].Value}, nil
}

// Check reports whether key matches an entry of a list or a key of a mapping.
func (t *Table) Check(ctx context.Context, s table.Service, key string) (bool, error) {
	if err := t.carries(ctx, s); err != nil {
		return false, err
	}
	if !table.Walked(s) {
		_, ok := t.index[table.Fold(key)]
		return ok, nil
	}
	m, err := t.matcher(s)
	if err != nil {
		return false, err
	}
	return m.Match(key), nil
}

// Fetch returns the entries of a list or the keys of a mapping, sorted.
func (t *Table) Fetch(ctx context.Context, s table.Service) ([]table.Row, error) {
	if err := t.carries(ctx, s); err != nil {
		return nil, err
	}
	if s == table.Regex {
		rows := make([]table.Row, len(t.raw))
		for i, p := range t.raw {
			rows[i] = table.Row{p}
		}
		return rows, nil
	}
	rows := make([]table.Row, len(t.entries))
	for i, e := range t.entries {
		rows[i] = table.Row{e.Key}
	}
	return rows, nil
}

// Validate reports the first entry that a service cannot read.
func (t *Table) Validate(_ context.Context, s table.Service) error {
	if !table.Walked(s) {
		return nil
	}
	_, err := t.matcher(s)
	return err
}

// Mapping reports whether the table is a mapping, not a list.
func (t *Table) Mapping() bool { return t.mapping }

// Len returns the number of entries.
func (t *Table) Len() int { return len(t.entries) }

// InUse returns the services whose entries have been prepared because they
// were asked.
func (t *Table) InUse() []table.Service {
	t.mu.Lock()
	defer t.mu.Unlock()
	var used []table.Service
	for s := range t.built {
		used = append(used, s)
	}
	slices.Sort(used)
	return used
}

// Close makes every later question an error.
func (t *Table) Close() error {
	t.closed.Store(true)
	return nil
}

// carries refuses what no list can answer.
func (t *Table) carries(ctx context.Context, s table.Service) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.closed.Load() {
		return os.ErrClosed
	}
	if s == table.Auth {
		return fmt.Errorf("%w: it cannot check passwords", table.ErrUnsupported)
	}
	return nil
}

func (t *Table) matcher(s table.Service) (table.Matcher, error) {
	t.mu.Lock()
	m := t.built[s]
	if m == nil {
		m = &matcher{}
		t.built[s] = m
	}
	t.mu.Unlock()
	m.once.Do(func() { m.m, m.err = table.NewMatcher(s, t.patterns(s), t.delim) })
	return m.m, m.err
}

func (t *Table) patterns(s table.Service) []string {
	if s == table.Regex {
		return t.raw
	}
	keys := make([]string, len(t.entries))
	for i, e := range t.entries {
		keys[i] = e.Key
	}
	return keys
}

func isMembership(s table.Service) bool { return table.Walked(s) || s == table.String }
