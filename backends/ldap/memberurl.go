package ldap

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// maxMemberURL bounds a URL in a group, in bytes.
const maxMemberURL = 8 << 10

// memberURL is a list of members that a search gives (RFC 4516), written by whoever
// may write the group. It is asked of the table's own servers, by the table's own
// account; so it must not reach beyond where the table's entries are, nor read of
// them what is not the table's to show.
type memberURL struct {
	base   string
	scope  int
	filter string
	attrs  []string
}

// parseMemberURL reads a URL that stands in a group.
func (s *settings) parseMemberURL(text string) (memberURL, error) {
	var m memberURL
	if len(text) > maxMemberURL {
		return m, fmt.Errorf("longer than %d bytes", maxMemberURL)
	}
	rest, err := s.ownHost(text)
	if err != nil {
		return m, err
	}
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "?")
	if len(parts) > 5 {
		return m, errors.New("more than four question marks")
	}
	parts = append(parts, "", "", "", "")[:5]
	for i := range parts {
		if parts[i], err = url.PathUnescape(parts[i]); err != nil {
			return m, err
		}
	}
	if err := s.ownBase(parts[0]); err != nil {
		return m, err
	}
	m = memberURL{base: parts[0], scope: ldap.ScopeBaseObject, filter: "(objectClass=*)"}
	if m.attrs, err = s.ownAttributes(parts[1]); err != nil {
		return m, err
	}
	if parts[2] != "" {
		if m.scope, err = parseScope(strings.ToLower(parts[2])); err != nil {
			return m, fmt.Errorf("scope %w", err)
		}
	}
	if parts[3] != "" {
		m.filter = parts[3]
		if !strings.HasPrefix(m.filter, "(") {
			m.filter = "(" + m.filter + ")"
		}
	}
	if _, err := compile(m.filter); err != nil {
		return m, err
	}
	if ext := slices.IndexFunc(strings.Split(parts[4], ","), func(e string) bool { return strings.HasPrefix(e, "!") }); ext >= 0 {
		return m, fmt.Errorf("extension %q is not known", strings.Split(parts[4], ",")[ext])
	}
	return m, nil
}

// ownHost checks that no other server is meant than those that the table has, and
// returns what follows.
func (s *settings) ownHost(text string) (rest string, err error) {
	_, after, _ := strings.Cut(text, "://")
	servers, rest, err := parseHosts(text)
	if err != nil {
		return "", err
	}
	if after == "" || strings.ContainsAny(after[:1], "/?") {
		return rest, nil
	}
	for _, srv := range servers {
		if !slices.ContainsFunc(s.servers, func(own server) bool { return strings.EqualFold(own.name(), srv.name()) }) {
			return "", fmt.Errorf("%s is none of the table's servers", srv)
		}
	}
	return rest, nil
}

// name is the server's host, or the path of its socket.
func (s server) name() string {
	if s.scheme == "ldapi" {
		return s.addr
	}
	return s.host
}

// ownBase checks that a base is where changes are followed.
func (s *settings) ownBase(base string) error {
	if _, err := parseDN(base); err != nil {
		return err
	}
	if own := s.memberBase(); !below(base, own) {
		return fmt.Errorf("base %q is not below %q (basedn)", base, own)
	}
	return nil
}

// memberBase is below what members are looked for.
func (s *settings) memberBase() string {
	for _, q := range s.lookup {
		if s.base == "" && q.name == "alias" {
			return q.base
		}
	}
	return s.base
}

// ownAttributes returns which attributes of members count.
func (s *settings) ownAttributes(list string) ([]string, error) {
	if list == "" || list == "*" {
		return s.groups.attrs, nil
	}
	attrs, err := parseAttributes(list)
	if err != nil {
		return nil, err
	}
	for _, a := range attrs {
		if !slices.ContainsFunc(s.groups.attrs, func(own string) bool { return strings.EqualFold(own, a) }) {
			return nil, fmt.Errorf("attribute %s is none of alias_deref_attributes", a)
		}
	}
	return attrs, nil
}

// searchURLs returns the members that URLs give.
func (w *groupWalk) searchURLs(ctx context.Context) ([]member, error) {
	var all []member
	for _, text := range w.urls {
		u, err := w.t.set.parseMemberURL(text)
		if err != nil {
			return nil, fmt.Errorf("URL %.300q in a group: %w", text, err)
		}
		entries, err := w.t.search.search(ctx, &request{
			base: u.base, scope: u.scope, filter: "(&" + w.g.filter + u.filter + ")", attrs: w.attrs(), members: w.g.max,
		})
		w.met += len(entries)
		if errors.Is(err, errTooLarge) || w.met > w.g.max {
			return nil, w.tooMany()
		}
		if err != nil {
			return nil, fmt.Errorf("URL %.300q in a group: %w", text, err)
		}
		for _, e := range entries {
			all = append(all, member{e, u.attrs})
		}
	}
	return all, nil
}
