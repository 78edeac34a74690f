package config

import (
	"net/netip"
	"slices"
	"strings"

	"tabard/internal/address"
	"tabard/internal/tlsopt"
)

// relay reads the options of `action "NAME" relay`.
func (p *parser) relay(a *Action) *Error {
	if err := parseOptions(p, a, relayOptions()); err != nil {
		return err
	}
	if err := p.checkRelay(a); err != nil {
		return err
	}
	if err := checkHandshake(a.Pos, a.Handshake); err != nil {
		return err
	}
	return p.checkStatic(a)
}

func relayOptions() []option[Action] {
	return []option[Action]{
		tableOption("auth", mapOrDynamic, func(a *Action) *TableRef { return &a.Auth }),
		{word: "backup", parse: (*parser).backup},
		{word: "ca", parse: func(p *parser, a *Action) *Error { return p.caArg(&a.CAName, &a.CATable) }},
		ciphersOption(func(a *Action) *tlsopt.Options { return &a.Handshake }),
		tableOption("dkim", mapOrDynamic, func(a *Action) *TableRef { return &a.DKIM }),
		tableOption("domain", mapOrDynamic, func(a *Action) *TableRef { return &a.Domain }),
		{word: "filter", parse: func(p *parser, a *Action) *Error { return p.filterArg(&a.Filters) }},
		{word: "helo", parse: func(p *parser, a *Action) *Error { return p.hostName(&a.Helo) }},
		tableOption("helo-src", mapOrDynamic, func(a *Action) *TableRef { return &a.HeloSrc }),
		tableOption("host", listOrDynamic, func(a *Action) *TableRef { return &a.Host }),
		flag("insecure-auth", func(a *Action) *bool { return &a.InsecureAuth }),
		{word: "mail-from", parse: (*parser).relayMailFrom},
		{word: "pki", parse: func(p *parser, a *Action) *Error { return p.pkiArg(&a.PKIName, &a.PKITable) }},
		protocolsOption(func(a *Action) *tlsopt.Options { return &a.Handshake }),
		tableOption("sender", mapOrDynamic, func(a *Action) *TableRef { return &a.Sender }),
		tableOption("src", anyShape, func(a *Action) *TableRef { return &a.Src }),
		{word: "srs", parse: (*parser).relaySRS},
		{word: "tls", parse: func(p *parser, a *Action) *Error {
			a.TLS = true
			a.NoVerify = p.accept("no-verify")
			return nil
		}},
		tableOption("tls-policy", mapOrDynamic, func(a *Action) *TableRef { return &a.TLSPolicy }),
		{word: "ttl", parse: (*parser).actionTTL},
	}
}

// backup reads [mx NAME].
func (p *parser) backup(a *Action) *Error {
	a.Backup = true
	if !p.accept("mx") {
		return nil
	}
	return p.hostName(&a.BackupMX)
}

func (p *parser) relaySRS(a *Action) *Error {
	a.SRS = true
	if p.cfg.SRS.Key == "" {
		return errorAt(p.tok.pos, "srs needs `srs key` before it")
	}
	return nil
}

func (p *parser) relayMailFrom(a *Action) *Error {
	pos := p.tok.pos
	if err := p.name(&a.MailFrom, "mail address"); err != nil {
		return err
	}
	if _, err := address.Parse(a.MailFrom); err != nil {
		return errorAt(pos, "mail-from %q: %v", a.MailFrom, err)
	}
	return nil
}

// checkRelay finds options that exclude each other.
func (p *parser) checkRelay(a *Action) *Error {
	var routes []string
	for _, r := range []struct {
		word  string
		given bool
	}{{"host", a.Host != ""}, {"domain or sender", a.Domain != "" || a.Sender != ""}, {"backup", a.Backup}} {
		if r.given {
			routes = append(routes, r.word)
		}
	}
	switch {
	case len(routes) > 1:
		return errorAt(a.Pos, "%s exclude each other", strings.Join(routes, " and "))
	case a.Auth != "" && (len(routes) == 0 || a.Backup):
		return errorAt(a.Pos, "auth needs host, domain or sender, whose URLs hold the labels to look up")
	case a.InsecureAuth && a.Auth == "":
		return errorAt(a.Pos, "insecure-auth needs auth")
	case a.Helo != "" && a.HeloSrc != "":
		return errorAt(a.Pos, "helo and helo-src exclude each other")
	case a.TLSPolicy != "" && a.TLS:
		return errorAt(a.Pos, "tls and tls-policy exclude each other")
	}
	return nil
}

// checkStatic looks into the inline tables of an action: a relay URL or source
// address that cannot be right is found here and not at the first delivery.
func (p *parser) checkStatic(a *Action) *Error {
	isURL := func(s string) error {
		_, err := p.cfg.Dialect.parseRelayURLs(s)
		return err
	}
	for _, ref := range []TableRef{a.Host, a.Domain, a.Sender} {
		if err := p.checkEntries(ref, isURL); err != nil {
			return err
		}
	}
	return p.checkEntries(a.Src, func(s string) error {
		_, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
		return err
	})
}

// checkEntries applies check to what an inline table answers with: the entries of
// a list, the values of a mapping.
func (p *parser) checkEntries(ref TableRef, check func(string) error) *Error {
	info := p.tables[string(ref)]
	if info == nil || info.index < 0 {
		return nil
	}
	t := p.cfg.Tables[info.index]
	answers := t.List
	for _, kv := range t.Map {
		answers = append(answers, kv.Value)
	}
	for i, s := range answers {
		if err := check(s); err != nil {
			return errorAt(info.pos[i], "%v", err)
		}
	}
	return nil
}

// HostsByDomain reports whether the inline list of an action's `host` holds a URL
// that leads somewhere else for every domain, so that mail of different domains
// cannot go together.
func (c *Config) HostsByDomain(a *Action) bool {
	i := slices.IndexFunc(c.Tables, func(t Table) bool { return a.Host != "" && TableRef(t.Name) == a.Host })
	if i < 0 {
		return false
	}
	return slices.ContainsFunc(c.Tables[i].List, func(s string) bool {
		// Those that are wrong were refused before.
		urls, _ := c.Dialect.parseRelayURLs(s)
		return slices.ContainsFunc(urls, RelayURL.ByDomain)
	})
}
