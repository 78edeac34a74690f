package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tabard/table"
)

const (
	// schemaAge is how old the picture of a schema may be that a question fails
	// for.
	schemaAge = 10 * time.Second
	maxSchema = 16 << 20
)

// schema knows which attributes the directory has. A server finds nothing for an
// attribute that it does not know, as if there were no such user.
type schema struct {
	set *settings

	mu    sync.Mutex
	names map[string]bool // in lower case; nil: not known
	at    time.Time
}

func newSchema(set *settings) *schema { return &schema{set: set} }

// look reads the schema of the server at the other end of c. Where it cannot be
// read, every attribute is taken to exist.
func (s *schema) look(ctx context.Context, c *conn) {
	asker := &searcher{set: s.set}
	names, err := readSchema(ctx, asker, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = time.Now()
	if err == nil {
		s.names = names
	}
}

// fresh reports whether the schema was read a moment ago.
func (s *schema) fresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names == nil || time.Since(s.at) < schemaAge
}

func readSchema(ctx context.Context, asker *searcher, c *conn) (map[string]bool, error) {
	r := &request{scope: ldap.ScopeBaseObject, filter: "(objectClass=*)", attrs: []string{"subschemaSubentry"}, limit: maxSchema}
	a, err := asker.ask(ctx, c, r)
	if err != nil {
		return nil, err
	}
	if len(a.entries) != 1 || a.entries[0].GetEqualFoldAttributeValue("subschemaSubentry") == "" {
		return nil, errors.New("no subschemaSubentry")
	}
	r.base, r.attrs = a.entries[0].GetEqualFoldAttributeValue("subschemaSubentry"), []string{"attributeTypes"}
	r.filter = "(objectClass=subschema)"
	if a, err = asker.ask(ctx, c, r); err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, e := range a.entries {
		for _, def := range e.GetEqualFoldAttributeValues("attributeTypes") {
			for _, n := range typeNames(def) {
				names[strings.ToLower(n)] = true
			}
		}
	}
	if !names["objectclass"] {
		return nil, errors.New("no attributeTypes")
	}
	return names, nil
}

// typeNames returns the names and the number in an attribute type description
// (RFC 4512, 4.1.2).
func typeNames(def string) []string {
	fields := strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(def))
	var names []string
	for i, f := range fields {
		if i == 1 {
			names = append(names, f)
		}
		if f != "NAME" {
			continue
		}
		for _, n := range fields[i+1:] {
			if n == "(" {
				continue
			}
			if !strings.HasPrefix(n, "'") {
				break
			}
			names = append(names, strings.Trim(n, "'"))
			if fields[i+1] != "(" {
				break
			}
		}
		break
	}
	return names
}

func (s *schema) has(attr string) bool {
	return s.names == nil || attr == "" || attr == "*" || attr == "+" || s.names[strings.ToLower(baseName(attr))]
}

// knows reports whether the directory has an attribute.
func (s *schema) knows(attr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has(attr)
}

// baseName returns an attribute without its options.
func baseName(attr string) string {
	name, _, _ := strings.Cut(attr, ";")
	return name
}

// hopeless returns why a query cannot find anything, whatever the key.
func (s *schema) hopeless(q *query, g groups) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		return nil
	}
	if attr := s.impossible(q.filter.root); attr != "" {
		return fmt.Errorf("%s_filter: %w", q.name, errNoAttribute(attr))
	}
	attrs := q.attrs
	if q.service == table.Alias && q.name == "alias" && g.follows() {
		attrs = slices.Concat(g.naming(), attrs)
	}
	need := 1 // several are alternatives
	if q.service == table.Credentials || q.service == table.DKIM {
		need = len(attrs)
	}
	var missing []string
	for _, a := range attrs {
		if a != "" && !s.has(a) {
			missing = append(missing, a)
		}
	}
	if len(attrs) > 0 && len(attrs)-len(missing) < need {
		return fmt.Errorf("%s_attributes: %w", q.name, errNoAttribute(strings.Join(missing, ", ")))
	}
	return nil
}

func errNoAttribute(names string) error {
	return fmt.Errorf("the server's schema has no attribute %s", names)
}

// impossible returns an attribute for whose absence nothing can match.
func (s *schema) impossible(n *node) string {
	if n.op == 0 || n.op == '!' {
		for _, a := range n.attributes() {
			if !s.has(a) {
				return a
			}
		}
		return ""
	}
	last := ""
	for _, k := range n.kids {
		last = s.impossible(k)
		if (last != "") == (n.op == '&') {
			break
		}
	}
	return last
}

// faults returns every attribute of a query that the schema lacks, for check.
// Of the attributes for certificates and keys, most directories have only some.
func (s *schema) faults(q *query) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []error
	for _, a := range q.filter.root.attributes() {
		if !s.has(a) {
			all = append(all, fmt.Errorf("%s_filter: %w", q.name, errNoAttribute(a)))
		}
	}
	if q.service == table.Cert || q.service == table.CA {
		return errors.Join(all...)
	}
	for _, a := range q.attrs {
		if !s.has(a) {
			all = append(all, fmt.Errorf("%s_attributes: %w", q.name, errNoAttribute(a)))
		}
	}
	return errors.Join(all...)
}
