package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tabard/internal/password"
)

// shape says what can be done with a table, as far as the text tells.
type shape uint8

const (
	shapeList    shape = 1 << iota // { a, b }
	shapeMap                       // { k = v }
	shapeDynamic                   // anything else: only its source knows

	listOrDynamic = shapeList | shapeDynamic
	mapOrDynamic  = shapeMap | shapeDynamic
	anyShape      = shapeList | shapeMap | shapeDynamic
)

// tableInfo is what the parser knows of a table beside its declaration.
type tableInfo struct {
	shape shape
	index int   // into Config.Tables; -1: built in
	pos   []Pos // of the entries of an inline table
}

// builtinTables are those that exist without being declared.
func builtinTables() map[string]*tableInfo {
	all := make(map[string]*tableInfo)
	for _, name := range []string{"localhost", "localnames", "anyhost", "anydestination"} {
		all[name] = &tableInfo{shape: shapeList, index: -1}
	}
	all["getpwnam"] = &tableInfo{shape: shapeDynamic, index: -1}
	return all
}

// table reads `table NAME SOURCE` or `table NAME { ... }`, then Tabard's options.
func (p *parser) table(pos Pos) *Error {
	t := Table{Pos: pos}
	at := p.tok.pos
	if err := p.name(&t.Name, "name of a table"); err != nil {
		return err
	}
	if old := p.tables[t.Name]; old != nil {
		if old.index < 0 {
			return errorAt(at, "table %q is built in", t.Name)
		}
		return errorAt(at, "table %q was already declared at %s", t.Name, p.cfg.Tables[old.index].Pos)
	}
	info := &tableInfo{shape: shapeDynamic}
	if p.isPunct("{") {
		if err := p.entries(&t, info); err != nil {
			return err
		}
	} else if err := p.tableSource(&t); err != nil {
		return err
	}
	if err := parseOptions(p, &t, tableOptions()); err != nil {
		return err
	}
	p.addTable(t, info)
	return nil
}

func (p *parser) addTable(t Table, info *tableInfo) {
	info.index = len(p.cfg.Tables)
	p.tables[t.Name] = info
	p.cfg.Tables = append(p.cfg.Tables, t)
}

// tableOptions are Tabard's own.
func tableOptions() []option[Table] {
	return []option[Table]{
		{word: "cache", parse: tableCache},
		{word: "default-scheme", parse: func(p *parser, t *Table) *Error {
			pos := p.tok.pos
			name, err := p.str("name of a password scheme, such as SSHA512")
			if err == nil && !password.KnownScheme(name) {
				err = errorAt(pos, "unknown password scheme %q", name)
			}
			t.Auth.DefaultScheme = name
			return err
		}},
		{word: "allow-plain", parse: func(_ *parser, t *Table) *Error {
			t.Auth.AllowPlain = true
			return nil
		}},
		{word: "refuse-weak", parse: func(_ *parser, t *Table) *Error {
			t.Auth.RefuseWeak = true
			return nil
		}},
		{word: "stale-ttl", parse: func(p *parser, t *Table) *Error {
			d, err := p.delay(0)
			if t.Cache.StaleTTL = d; d == 0 {
				t.Cache.StaleTTL = -1
			}
			return err
		}},
	}
}

// tableCache reads `cache off` or `cache [ttl DELAY] [size SIZE]`.
func tableCache(p *parser, t *Table) (err *Error) {
	if p.accept("off") {
		t.Cache.Off = true
		return nil
	}
	begin := p.tok
	for err == nil {
		switch {
		case t.Cache.TTL == 0 && p.accept("ttl"):
			t.Cache.TTL, err = p.delay(time.Second)
		case t.Cache.Size == 0 && p.accept("size"):
			pos := p.tok.pos
			if t.Cache.Size, err = p.size(); err == nil && t.Cache.Size < minCache {
				err = errorAt(pos, "a cache of %d bytes is too small; expected at least %d", t.Cache.Size, minCache)
			}
		case p.tok == begin:
			return p.unexpected("off", "ttl", "size")
		default:
			return nil
		}
	}
	return err
}

// minCache is the smallest cache of a table, in bytes.
const minCache = 64 << 10

// tableSource reads where a table's rows are.
func (p *parser) tableSource(t *Table) *Error {
	pos := p.tok.pos
	text, err := p.str("{ or the source of a table, such as /path, file:/path, sqlite:/path")
	if err != nil {
		return err
	}
	kind, source, problem := splitSource(text)
	if problem != "" {
		return errorAt(pos, "source of table %q: %s", t.Name, problem)
	}
	t.Kind, t.Source = kind, source
	return nil
}

// splitSource takes the source of a table apart; problem is not empty when it is
// no source.
func splitSource(text string) (kind, source, problem string) {
	if hasControl(text) {
		return "", "", "control character"
	}
	if strings.HasPrefix(text, "/") {
		return "file", text, ""
	}
	if scheme, _, ok := strings.Cut(text, "://"); ok {
		switch scheme {
		case "postgres", "postgresql":
			return "postgres", text, ""
		case "ldap", "ldaps", "ldapi":
			return "ldap", text, ""
		}
		return "", "", fmt.Sprintf("unknown scheme %q; expected one of ldap, ldapi, ldaps, postgres", scheme)
	}
	kind, source, hasSource := strings.Cut(text, ":")
	if !isTypeName(kind) {
		return "", "", fmt.Sprintf("%q; expected an absolute path, TYPE:/path or a URL", text)
	}
	if kind == "static" {
		kind = "file"
	}
	return kind, source, checkSource(kind, source, hasSource)
}

func checkSource(kind, source string, given bool) string {
	needs := slices.Contains([]string{"file", "sqlite", "postgres", "ldap", "proc", "socketmap", "db"}, kind)
	switch {
	case !given && needs:
		return fmt.Sprintf("%q needs a path: %s:/path", kind, kind)
	case !given || kind == "socketmap" && source != "":
		return ""
	case !strings.HasPrefix(source, "/"):
		return fmt.Sprintf("%q is not an absolute path", source)
	}
	return ""
}

func isTypeName(s string) bool {
	for _, c := range []byte(s) {
		if !isAlnum(int(c)) && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// entries reads { a, b } or { k = v }. Commas may be left out, and lines may end
// anywhere between entries.
func (p *parser) entries(t *Table, info *tableInfo) *Error {
	t.Kind = "static"
	p.next()
	for p.separators(); !p.isPunct("}"); p.separators() {
		at := p.tok.pos
		key, err := p.str("an entry or }")
		if err != nil {
			return err
		}
		hasValue := p.isPunct("=") || p.isPunct("=>")
		if len(info.pos) > 0 && hasValue != (t.Map != nil) {
			return p.mixed(at, key, hasValue)
		}
		info.pos = append(info.pos, at)
		if !hasValue {
			t.List = append(t.List, key)
			continue
		}
		p.next()
		value, err := p.str("the value of " + key)
		if err != nil {
			return err
		}
		t.Map = append(t.Map, KeyVal{key, value})
	}
	p.next()
	switch {
	case t.Map != nil:
		info.shape = shapeMap
	case t.List != nil:
		info.shape = shapeList
	}
	return nil
}

func (p *parser) mixed(at Pos, key string, hasValue bool) *Error {
	if hasValue {
		return errorAt(at, "entry %q has a value, those before have none", key)
	}
	return errorAt(at, `entry %q has no value, those before have one; expected "="`, key)
}

// separators skips commas and the ends of lines.
func (p *parser) separators() {
	for p.isPunct(",") || p.tok.kind == tokNewline && p.depth > 0 {
		p.next()
	}
}

// isTable reports whether a table, a list or a text comes next.
func (p *parser) isTable() bool { return p.isPunct("<") || p.isPunct("{") || p.isStr() }

// tableArg reads <name>, { list } or a single text into *to, for the option word.
func (p *parser) tableArg(to *TableRef, word string, allowed shape) *Error {
	pos := p.tok.pos
	if p.isPunct("<") {
		return p.tableRef(to, word, allowed)
	}
	if !p.isTable() {
		return p.unexpected("<table>", "{ list }", "a string")
	}
	t := Table{Pos: pos, Name: fmt.Sprintf("<dynamic:%d>", p.dynamic), Kind: "static"}
	info := &tableInfo{shape: shapeDynamic}
	if p.isPunct("{") {
		if err := p.entries(&t, info); err != nil {
			return err
		}
	} else {
		one, err := p.str("a string")
		if err != nil {
			return err
		}
		t.List, info.shape, info.pos = []string{one}, shapeList, []Pos{pos}
	}
	p.dynamic++
	p.addTable(t, info)
	*to = TableRef(t.Name)
	return p.checkShape(pos, *to, word, allowed)
}

// tableRef reads <name>.
func (p *parser) tableRef(to *TableRef, word string, allowed shape) *Error {
	if err := p.punct("<"); err != nil {
		return err
	}
	pos := p.tok.pos
	name, err := p.str("name of a table")
	if err != nil {
		return err
	}
	if err := p.punct(">"); err != nil {
		return err
	}
	if p.tables[name] == nil {
		return errorAt(pos, "no such table: %q; a table must be declared before it is used", name)
	}
	*to = TableRef(name)
	return p.checkShape(pos, *to, word, allowed)
}

func (p *parser) checkShape(pos Pos, ref TableRef, word string, allowed shape) *Error {
	switch s := p.tables[string(ref)].shape; {
	case s&allowed != 0:
		return nil
	case s == shapeList:
		return errorAt(pos, "%s needs a mapping, { key = value }, and this is a list", word)
	default:
		return errorAt(pos, "%s needs a list, { a, b }, and this is a mapping", word)
	}
}
