package provision

import (
	"context"
	"fmt"
	"strings"

	"tabard/internal/address"
	"tabard/table"
)

// AddDomain adds a domain that mail is taken for; wildcards are allowed.
func (d *DB) AddDomain(ctx context.Context, name string) error {
	name, err := domainName(name)
	if err != nil {
		return err
	}
	return d.add(ctx, "domain "+name, `INSERT INTO domains (name) VALUES (?)`, name)
}

func domainName(name string) (string, error) {
	name, err := key("domain", name)
	if err != nil {
		return "", err
	}
	if err := address.CheckDomain(strings.ReplaceAll(name, "*", "x")); err != nil {
		return "", fmt.Errorf("domain %q: %w", name, err)
	}
	return name, nil
}

// RemoveDomain removes a domain.
func (d *DB) RemoveDomain(ctx context.Context, name string) error {
	name, err := key("domain", name)
	if err != nil {
		return err
	}
	return d.change(ctx, "domain "+name, `DELETE FROM domains WHERE {name} = ?`, name)
}

// ListDomains returns every domain, by name.
func (d *DB) ListDomains(ctx context.Context) ([]string, error) {
	return d.texts(ctx, `SELECT name FROM domains ORDER BY name`)
}

// AliasRow is a row of aliases.
type AliasRow struct {
	Address string `json:"address"`
	Target  string `json:"target"`
}

// AddAlias adds a target to an address: "user", "user@domain", "@domain" or "@".
func (d *DB) AddAlias(ctx context.Context, addr, target string) error {
	a, err := AliasRow{addr, target}.normal()
	if err != nil {
		return err
	}
	return d.add(ctx, "alias "+a.Address+" to "+target, `INSERT INTO aliases (address, target) VALUES (?, ?)`, a.Address, target)
}

// normal returns the row as it is stored.
func (a AliasRow) normal() (AliasRow, error) {
	addr, err := key("alias", a.Address)
	if err != nil {
		return a, err
	}
	if _, err := table.ParseNodes(table.Row{a.Target}); err != nil {
		return a, fmt.Errorf("alias %s: %w", addr, err)
	}
	if len(a.Target) > maxTarget {
		return a, fmt.Errorf("alias %s: target longer than %d bytes: give several, one at a time", addr, maxTarget)
	}
	return AliasRow{addr, a.Target}, nil
}

// RemoveAlias removes one target of an address, or all with an empty target.
func (d *DB) RemoveAlias(ctx context.Context, addr, target string) error {
	addr, err := key("alias", addr)
	if err != nil {
		return err
	}
	return d.change(ctx, "alias "+addr, `DELETE FROM aliases WHERE {address} = ?1 AND (?2 = '' OR target = ?2)`, addr, target)
}

// ListAliases returns every alias, by address.
func (d *DB) ListAliases(ctx context.Context) ([]AliasRow, error) {
	return list(ctx, d, `SELECT address, target FROM aliases ORDER BY address, id`,
		func(scan func(...any) error) (a AliasRow, err error) {
			err = scan(&a.Address, &a.Target)
			return a, err
		})
}

// SenderRow is a row of senders.
type SenderRow struct {
	User    string `json:"user"`
	Address string `json:"address"`
}

// AddSender allows a user to send as an address, or as "@domain".
func (d *DB) AddSender(ctx context.Context, user, addr string) error {
	s, err := SenderRow{user, addr}.normal()
	if err != nil {
		return err
	}
	return d.add(ctx, "sender "+s.Address+" of "+s.User, `INSERT INTO senders ("user", address) VALUES (?, ?)`, s.User, s.Address)
}

// normal returns the row as it is stored.
func (s SenderRow) normal() (SenderRow, error) {
	user, err := key("user", s.User)
	if err != nil {
		return s, err
	}
	addr, err := key("sender", s.Address)
	return SenderRow{user, addr}, err
}

// RemoveSender takes back what AddSender gave; all of the user's with an empty
// address.
func (d *DB) RemoveSender(ctx context.Context, user, addr string) error {
	user, err := key("user", user)
	if err != nil {
		return err
	}
	return d.change(ctx, "senders of "+user, `DELETE FROM senders WHERE {user} = ?1 AND (?2 = '' OR {address} = ?2)`, user, table.Fold(addr))
}

// ListSenders returns every sender, by user.
func (d *DB) ListSenders(ctx context.Context) ([]SenderRow, error) {
	return list(ctx, d, `SELECT "user", address FROM senders ORDER BY {user}, id`,
		func(scan func(...any) error) (s SenderRow, err error) {
			err = scan(&s.User, &s.Address)
			return s, err
		})
}

// RelayRow is a row of relays.
type RelayRow struct {
	Match    string `json:"match"` // domain, *.domain, sender address or *
	URL      string `json:"url"`
	Priority int64  `json:"priority"` // lower is tried first
	Weight   int64  `json:"weight"`   // among equals, higher is tried first
}

// AddRelay adds a relay. The URL is taken as it is: whoever calls has parsed it
// in the dialect of the configuration.
func (d *DB) AddRelay(ctx context.Context, r RelayRow) error {
	r, err := r.normal()
	if err != nil {
		return err
	}
	return d.add(ctx, "relay for "+r.Match, `INSERT INTO relays (match, url, priority, weight) VALUES (?, ?, ?, ?)`,
		r.Match, r.URL, r.Priority, r.Weight)
}

// normal returns the row as it is stored.
func (r RelayRow) normal() (RelayRow, error) {
	match, err := key("relay", r.Match)
	if err != nil {
		return r, err
	}
	if r.URL == "" || strings.ContainsAny(r.URL, " \t\r\n\x00,") {
		return r, fmt.Errorf("relay %s: bad URL %q", match, r.URL)
	}
	r.Match = match
	return r, nil
}

// RemoveRelay removes one relay of a match, or all with an empty url.
func (d *DB) RemoveRelay(ctx context.Context, match, url string) error {
	match, err := key("relay", match)
	if err != nil {
		return err
	}
	return d.change(ctx, "relay for "+match, `DELETE FROM relays WHERE {match} = ?1 AND (?2 = '' OR url = ?2)`, match, url)
}

// ListRelays returns every relay, by match and in order of preference.
func (d *DB) ListRelays(ctx context.Context) ([]RelayRow, error) {
	return list(ctx, d, `SELECT match, url, priority, weight FROM relays ORDER BY match, priority, weight DESC, id`,
		func(scan func(...any) error) (r RelayRow, err error) {
			err = scan(&r.Match, &r.URL, &r.Priority, &r.Weight)
			return r, err
		})
}

// RelayCredential is a row of relay_credentials, without the password.
type RelayCredential struct {
	Label    string `json:"label"`
	Username string `json:"username"`
}

// SetRelayCredential adds or replaces what a label authenticates with.
func (d *DB) SetRelayCredential(ctx context.Context, label, username, password string) error {
	label, err := relayLogin(label, username, password)
	if err != nil {
		return err
	}
	return d.add(ctx, "label "+label, `INSERT INTO relay_credentials (label, username, password) VALUES (?, ?, ?)
ON CONFLICT ({label}) DO UPDATE SET username = excluded.username, password = excluded.password`, label, username, password)
}

// relayLogin returns the label as it is stored.
func relayLogin(label, username, password string) (string, error) {
	label, err := key("label", label)
	if err == nil && (username == "" || password == "" || strings.ContainsAny(username+password, "\x00\r\n")) {
		err = fmt.Errorf("label %s: user name and password must be given, without NUL, CR and LF", label)
	}
	return label, err
}

// RemoveRelayCredential removes a label.
func (d *DB) RemoveRelayCredential(ctx context.Context, label string) error {
	label, err := key("label", label)
	if err != nil {
		return err
	}
	return d.change(ctx, "label "+label, `DELETE FROM relay_credentials WHERE {label} = ?`, label)
}

// ListRelayCredentials returns every label.
func (d *DB) ListRelayCredentials(ctx context.Context) ([]RelayCredential, error) {
	return list(ctx, d, `SELECT label, username FROM relay_credentials ORDER BY label`,
		func(scan func(...any) error) (c RelayCredential, err error) {
			err = scan(&c.Label, &c.Username)
			return c, err
		})
}
