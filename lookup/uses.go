package lookup

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"tabard/internal/config"
	"tabard/table"
)

// use is a service that a directive asks a table for.
type use struct {
	table   config.TableRef // empty: the directive names none
	service table.Service
}

// listenerUses leaves out the table that judges passwords: see passwordService.
func listenerUses(l *config.Listener) []use {
	uses := []use{{l.Senders, table.MailAddrMap}, {l.Hostnames, table.AddrName}, {l.CertAuth, table.CertAuth}}
	if l.TLS != config.TLSNone {
		for _, ref := range l.PKITables {
			uses = append(uses, use{ref, table.Cert})
		}
	}
	return uses
}

// actionUses are the questions of an action by key.
func actionUses(a *config.Action) []use {
	return []use{
		{a.Alias, table.Alias}, {a.Virtual, table.Alias}, {a.UserBase, table.UserInfo},
		{a.Domain, table.RelayHost}, {a.Sender, table.RelayHost}, {a.Auth, table.Credentials},
		{a.HeloSrc, table.AddrName}, {a.PKITable, table.Cert}, {a.TLSPolicy, table.TLSPolicy}, {a.DKIM, table.DKIM},
	}
}

func matchUses(m *config.Match) []use {
	var uses []use
	cond := func(k *config.Cond, s table.Service) {
		if k == nil {
			return
		}
		if k.Regex {
			s = table.Regex
		}
		uses = append(uses, use{k.Table, s})
	}
	from := map[config.FromKind]table.Service{
		config.FromSrc: table.NetAddr, config.FromRDNS: table.Domain,
		config.FromAuth: table.String, config.FromMailFrom: table.MailAddr,
	}
	if s, ok := from[m.From]; ok {
		cond(&m.FromCond, s)
	}
	switch m.For {
	case config.ForDomain:
		cond(&m.ForCond, table.Domain)
	case config.ForRcptTo:
		cond(&m.ForCond, table.MailAddr)
	}
	cond(m.Tag, table.String)
	cond(m.Helo, table.Domain)
	cond(m.Auth, table.String)
	cond(m.MailFrom, table.MailAddr)
	cond(m.RcptTo, table.MailAddr)
	return uses
}

// services returns, by table, the names of the services that the configuration
// asks it for, in the order of the services.
func (s *Service) services(ctx context.Context) map[config.TableRef][]string {
	var uses []use
	for i := range s.cfg.Listeners {
		l := &s.cfg.Listeners[i]
		uses = append(uses, listenerUses(l)...)
		uses = append(uses, use{l.CATable, table.CA}, use{l.AuthTable, s.passwordService(ctx, l.AuthTable)})
	}
	for i := range s.cfg.Actions {
		a := &s.cfg.Actions[i]
		uses = append(uses, actionUses(a)...)
		uses = append(uses, use{a.CATable, table.CA}, use{a.Host, table.RelayHost}, use{a.Src, table.Source})
	}
	for i := range s.cfg.Matches {
		uses = append(uses, matchUses(&s.cfg.Matches[i])...)
	}
	slices.SortFunc(uses, func(a, b use) int {
		return cmp.Or(strings.Compare(string(a.table), string(b.table)), cmp.Compare(a.service, b.service))
	})
	names := make(map[config.TableRef][]string)
	for _, u := range slices.Compact(uses) {
		names[u.table] = append(names[u.table], u.service.String())
	}
	return names
}

// judgeTimeout bounds the question whether a table judges passwords itself.
const judgeTimeout = time.Second

// passwordService is what a table is asked for when somebody logs in. A program
// that does not run is taken for one that judges itself.
func (s *Service) passwordService(ctx context.Context, ref config.TableRef) table.Service {
	t, err := s.tables.get(ref)
	if err != nil {
		return table.Credentials
	}
	ctx, cancel := context.WithTimeout(ctx, judgeTimeout)
	defer cancel()
	if itself, err := t.Authenticates(ctx); err == nil && !itself {
		return table.Credentials
	}
	return table.Auth
}
