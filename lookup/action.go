package lookup

import (
	"fmt"
	"sync/atomic"

	"tabard/internal/config"
	"tabard/internal/format"
	"tabard/table"
)

// The delivery places of actions that name none.
const (
	defaultMaildir = "~/Maildir"
	defaultMbox    = "/var/mail/%{user.username}"
)

// action is a configured action with its tables and templates. Tables that it
// does not have are nil.
type action struct {
	*config.Action

	alias, virtual, userbase     *table.Table
	host, domain, sender, auth   *table.Table
	tlsPolicy, dkim              *table.Table
	heloSrc, src                 *table.Table
	path, lmtp, command, wrapper *format.Template
	explicitBase                 bool // userbase was written
	byDomain                     bool // the hosts of `host` depend on the mail's domain
	nextHost, nextSource         atomic.Uint32
}

func (s *Service) newAction(c *config.Action) (*action, error) {
	a := &action{Action: c, explicitBase: c.UserBase != "", byDomain: s.cfg.HostsByDomain(c)}
	base := c.UserBase
	if base == "" {
		base = tableGetpwnam
	}
	refs := []struct {
		name config.TableRef
		to   **table.Table
	}{
		{base, &a.userbase}, {c.Alias, &a.alias}, {c.Virtual, &a.virtual}, {c.Host, &a.host}, {c.Domain, &a.domain},
		{c.Sender, &a.sender}, {c.Auth, &a.auth}, {c.TLSPolicy, &a.tlsPolicy}, {c.DKIM, &a.dkim},
		{c.HeloSrc, &a.heloSrc}, {c.Src, &a.src},
	}
	for _, r := range refs {
		if r.name == "" {
			continue
		}
		t, err := s.tables.get(r.name)
		if err != nil {
			return nil, fmt.Errorf("%s: action %q: %w", c.Pos, c.Name, err)
		}
		*r.to = t
	}
	if err := a.templates(s.cfg); err != nil {
		return nil, fmt.Errorf("%s: action %q: %w", c.Pos, c.Name, err)
	}
	return a, nil
}

// templates parses the texts that hold format specifiers.
func (a *action) templates(cfg *config.Config) error {
	path := a.Path
	switch {
	case path == "" && a.Method == config.MethodMbox:
		path = defaultMbox
	case path == "":
		path = defaultMaildir
	}
	wrapper, err := a.wrapperText(cfg)
	if err != nil {
		return err
	}
	for _, t := range []struct {
		text string
		to   **format.Template
	}{{path, &a.path}, {a.LMTP, &a.lmtp}, {a.Command, &a.command}, {wrapper, &a.wrapper}} {
		if *t.to, err = format.Parse(t.text); err != nil {
			return err
		}
	}
	return nil
}

// wrapperText returns the command of the action's wrapper: without one, the
// bare %{mda}.
func (a *action) wrapperText(cfg *config.Config) (string, error) {
	if a.Wrapper == "" {
		return "%{mda}", nil
	}
	if a.Method != config.MethodMDA {
		return "", fmt.Errorf("not supported yet: wrapper with method %s", a.Method)
	}
	for _, w := range cfg.Wrappers {
		if w.Name == a.Wrapper {
			return w.Command, nil
		}
	}
	return "", fmt.Errorf("wrapper %q: %w", a.Wrapper, errUnknown)
}

// rotate returns list starting at the next element in turn.
func rotate[T any](list []T, turn *atomic.Uint32) []T {
	if len(list) < 2 {
		return list
	}
	i := int((turn.Add(1) - 1) % uint32(len(list)))
	return append(append(make([]T, 0, len(list)), list[i:]...), list[:i]...)
}
