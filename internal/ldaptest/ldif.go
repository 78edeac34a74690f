package ldaptest

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// Load adds the entries of an LDIF text (RFC 2849): continued lines, comments and
// base64 values are understood, change records are not.
func (s *Server) Load(ctx context.Context, ldif string) error { return s.LoadAs(ctx, s.RootDN, ldif) }

// LoadAs is Load by another DN with the same password.
func (s *Server) LoadAs(ctx context.Context, dn, ldif string) error {
	entries, err := parseLDIF(ldif)
	if err != nil {
		return err
	}
	return s.doAs(dn, func(c *ldap.Conn) error {
		for _, e := range entries {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := c.Add(e); err != nil {
				return fmt.Errorf("%s: %w", e.DN, err)
			}
		}
		return nil
	})
}

// Do runs changes on a connection of the root DN.
func (s *Server) Do(change func(c *ldap.Conn) error) error { return s.doAs(s.RootDN, change) }

func (s *Server) doAs(dn string, change func(c *ldap.Conn) error) error {
	c, err := s.connectAs(dn)
	if err != nil {
		return err
	}
	return errors.Join(change(c), c.Close())
}

// Replace sets the values of an attribute; none remove it.
func (s *Server) Replace(dn, attr string, values ...string) error {
	return s.Do(func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(dn, nil)
		m.Replace(attr, values)
		return c.Modify(m)
	})
}

// Delete removes an entry.
func (s *Server) Delete(dn string) error {
	return s.Do(func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
}

func parseLDIF(text string) ([]*ldap.AddRequest, error) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\n ", "") // continued lines
	var entries []*ldap.AddRequest
	var current *ldap.AddRequest
	at := make(map[string]int)
	sc := bufio.NewScanner(strings.NewReader(text))
	sc.Buffer(nil, 64<<20)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "version:") {
			continue
		}
		if strings.TrimSpace(line) == "" {
			current = nil
			continue
		}
		name, value, err := parseValue(line)
		if err != nil {
			return nil, fmt.Errorf("LDIF: line %d: %w", n, err)
		}
		switch {
		case current == nil && name == "dn":
			current = ldap.NewAddRequest(value, nil)
			entries = append(entries, current)
			clear(at)
		case current == nil:
			return nil, fmt.Errorf("LDIF: line %d: %s comes before dn", n, name)
		default:
			i, ok := at[name]
			if !ok {
				i = len(current.Attributes)
				at[name] = i
				current.Attributes = append(current.Attributes, ldap.Attribute{Type: name})
			}
			current.Attributes[i].Vals = append(current.Attributes[i].Vals, value)
		}
	}
	return entries, sc.Err()
}

func parseValue(line string) (name, value string, err error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return "", "", fmt.Errorf("%q has no colon", line)
	}
	if encoded, ok := strings.CutPrefix(value, ":"); ok {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		return name, string(b), err
	}
	return name, strings.TrimPrefix(value, " "), nil
}
