package config

import (
	"cmp"
	"slices"
	"strings"
)

// This file is the one list of what the language says and this version does not
// do yet. Whoever builds one of these things deletes its line here.

// gap is one such thing: how it is called, and whether t asks for it.
type gap[T any] struct {
	what string
	uses func(t *T) bool
}

func tableGaps() []gap[Table] {
	return []gap[Table]{
		{"db tables", func(t *Table) bool { return t.Kind == "db" }},
	}
}

func pkiGaps() []gap[PKI] {
	return []gap[PKI]{
		{"pki dhe auto and legacy (only ECDHE is offered)", func(k *PKI) bool { return k.DHE == "auto" || k.DHE == "legacy" }},
	}
}

func listenerGaps() []gap[Listener] {
	return []gap[Listener]{
		{"auth without a table (system accounts)", func(l *Listener) bool { return l.Auth != AuthNone && l.AuthTable == "" }},
		{"senders masquerade", func(l *Listener) bool { return l.Masquerade }},
		{"proxy-v2", func(l *Listener) bool { return l.ProxyV2 }},
		{"filters", func(l *Listener) bool { return len(l.Filters) > 0 }},
	}
}

func actionGaps() []gap[Action] {
	return []gap[Action]{
		{"forward-only (.forward files)", func(a *Action) bool { return a.Method == MethodForwardOnly }},
		{"mda wrappers", func(a *Action) bool { return a.Wrapper != "" }},
		{"filters", func(a *Action) bool { return len(a.Filters) > 0 }},
	}
}

// globalGaps are looked up in Config.Where.
func globalGaps() []gap[Config] {
	given := func(word string) func(*Config) bool {
		return func(c *Config) bool {
			_, ok := c.Where[word]
			return ok
		}
	}
	return []gap[Config]{
		{"admd", given("admd")},
		{"queue postgres", func(c *Config) bool { return c.Queue.Driver == "postgres" }},
		{"queue encryption with a key that is not in a file (tabard queue encrypt new-key makes one)", func(c *Config) bool {
			return given("queue encryption")(c) && c.Queue.Encryption == ""
		}},
		{"mda limit", given("mda limit")},
		{"scheduler limit", given("scheduler limit")},
	}
}

func filterGaps() []gap[Filter] {
	return []gap[Filter]{{"filters", func(*Filter) bool { return true }}}
}

func procGaps() []gap[Proc] { return []gap[Proc]{{"filters", func(*Proc) bool { return true }}} }

func wrapperGaps() []gap[Wrapper] {
	return []gap[Wrapper]{{"mda wrappers", func(*Wrapper) bool { return true }}}
}

// unsupported lists what c asks for and this version cannot do, in order of
// position.
func unsupported(c *Config) []Unsupported {
	var all []Unsupported
	all = append(all, find(c.Tables, tableGaps(), func(t *Table) Pos { return t.Pos })...)
	all = append(all, find(c.PKIs, pkiGaps(), func(k *PKI) Pos { return k.Pos })...)
	all = append(all, find(c.Listeners, listenerGaps(), func(l *Listener) Pos { return l.Pos })...)
	all = append(all, find(c.Actions, actionGaps(), func(a *Action) Pos { return a.Pos })...)
	all = append(all, find(c.Filters, filterGaps(), func(f *Filter) Pos { return f.Pos })...)
	all = append(all, find(c.Procs, procGaps(), func(r *Proc) Pos { return r.Pos })...)
	all = append(all, find(c.Wrappers, wrapperGaps(), func(w *Wrapper) Pos { return w.Pos })...)
	for _, g := range globalGaps() {
		if g.uses(c) {
			all = append(all, Unsupported{c.whereGap(g.what), g.what})
		}
	}
	slices.SortStableFunc(all, func(a, b Unsupported) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	return all
}

func find[T any](items []T, gaps []gap[T], pos func(*T) Pos) []Unsupported {
	var all []Unsupported
	for i := range items {
		for _, g := range gaps {
			if g.uses(&items[i]) {
				all = append(all, Unsupported{pos(&items[i]), g.what})
			}
		}
	}
	return all
}

// whereGap is the position of the global directive that a gap is called after.
func (c *Config) whereGap(what string) Pos {
	for words := strings.Fields(what); len(words) > 0; words = words[:len(words)-1] {
		if pos, ok := c.Where[strings.Join(words, " ")]; ok {
			return pos
		}
	}
	return c.Queue.Pos
}
