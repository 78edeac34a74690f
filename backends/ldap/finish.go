package ldap

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"tabard/table"
)

// finish checks what the keys say together, and fills in what is left out.
func (s *settings) finish() error {
	switch {
	case len(s.servers) == 0:
		return errors.New("url is missing")
	case s.bindDN != "" && s.external:
		return errors.New("username and bind external exclude each other")
	case s.secret != "" && s.secretFile != "":
		return errors.New("password and password_file exclude each other")
	case s.bindDN != "" && s.secret == "" && s.secretFile == "":
		return errors.New("username has no password")
	case s.bindDN == "" && (s.secret != "" || s.secretFile != ""):
		return errors.New("password has no username")
	case (s.certFile == "") != (s.keyFile == ""):
		return errors.New("tls_cert_file and tls_key_file belong together")
	}
	for _, srv := range s.servers {
		if s.startTLS && srv.scheme != "ldap" {
			return fmt.Errorf("starttls: %s is not an ldap:// URL", srv)
		}
	}
	if err := s.finishGroups(); err != nil {
		return err
	}
	for _, q := range s.queries() {
		if err := s.finishQuery(q, s.fetch[q.service] == q); err != nil {
			return fmt.Errorf("%s_%w", q.name, err)
		}
	}
	return s.finishAuth()
}

// queries returns all queries in a stable order.
func (s *settings) queries() []*query {
	var all []*query
	for _, m := range []map[table.Service]*query{s.lookup, s.fetch} {
		for _, service := range slices.Sorted(maps.Keys(m)) {
			all = append(all, m[service])
		}
	}
	if s.members != nil {
		all = append(all, s.members)
	}
	return all
}

// finishQuery's errors begin with the rest of a key.
func (s *settings) finishQuery(q *query, fetched bool) error {
	if q.filter == nil {
		return errors.New("filter is missing")
	}
	if q.filter.root.keyed() == fetched {
		if fetched {
			return errors.New("filter: must not have a placeholder")
		}
		return errors.New("filter: has no placeholder for the key")
	}
	s.inherit(&q.base, &q.scope)
	if q.base == "" {
		return errors.New("base: neither it nor basedn is given")
	}
	switch q.service {
	case table.Cert:
		if q.attrs != nil {
			s.certAttrs = q.attrs
		}
		q.attrs = slices.Concat(s.certAttrs, s.certKeys)
	case table.CA:
		if q.attrs != nil {
			s.caAttrs = q.attrs
		}
		q.attrs = s.caAttrs
	case table.Alias:
		if (s.groups.follows() || s.members != nil) && q.attrs == nil {
			return nil // the values may all be those of members
		}
	}
	return q.countAttributes(fetched)
}

// countAttributes checks their number against what the service needs.
func (q *query) countAttributes(fetched bool) error {
	min, max := 1, 1
	switch q.service {
	case table.Credentials:
		min, max = 2, 2
	case table.DKIM:
		max = 2 // selector:key, or one attribute for each
	case table.UserInfo:
		min, max = 3, 3
	case table.Alias, table.MailAddrMap, table.RelayHost, table.Cert, table.CA:
		max = 100
	case table.Domain, table.NetAddr, table.MailAddr, table.String:
		if !fetched {
			min = 0 // that there is an entry is the answer
		}
	}
	if n := len(q.attrs); n < min || n > max {
		return fmt.Errorf("attributes: %d are given, %s needs %d", n, q.service, min)
	}
	return nil
}

func (s *settings) inherit(base *string, scope *int) {
	if *base == "" {
		*base = s.base
	}
	if *scope < 0 {
		*scope = s.scope
	}
}

func (s *settings) finishGroups() error {
	g := &s.groups
	used := g.follows() || s.members != nil
	given := g.attrs != nil || g.uidFilter != nil || g.filter != "(objectClass=*)"
	if !used {
		if given {
			return errors.New("alias_deref_ and alias_member_uid_ keys need one of alias_deref, alias_member_uid, alias_member_url and alias_members_filter")
		}
		return nil
	}
	alias := s.lookup[table.Alias]
	if alias == nil {
		return errors.New("members of groups need an alias_filter")
	}
	if g.attrs == nil {
		g.attrs = []string{"mail"}
	}
	if s.members != nil {
		s.members.base, s.members.scope, s.members.attrs = alias.base, alias.scope, g.attrs
		if s.base != "" {
			s.members.base, s.members.scope = s.base, s.scope
		}
	}
	if g.uidFilter == nil {
		var err error
		if g.uidFilter, err = parseFilter("(uid=%s)", s.name); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) finishAuth() error {
	a := &s.auth
	given := a.dn != nil || a.filter != nil || a.base != "" || a.scope >= 0
	switch {
	case !a.bind && given:
		return errors.New("auth_ keys need the line: auth bind")
	case !a.bind:
		return nil
	case (a.dn == nil) == (a.filter == nil):
		return errors.New("auth bind needs either auth_dn or auth_filter")
	}
	s.inherit(&a.base, &a.scope)
	if a.filter != nil && a.base == "" {
		return errors.New("auth_base: neither it nor basedn is given")
	}
	return nil
}
