package lookup

import (
	"context"
	"strings"

	"tabard/internal/config"
	"tabard/table"
)

func (c *checking) action(ctx context.Context, cfg *config.Action) {
	a, err := c.s.action(cfg.Name)
	if err != nil {
		c.add(Problem{Pos: cfg.Pos, Cause: err.Error()})
		return
	}
	for _, u := range actionUses(cfg) {
		c.use(ctx, a.Pos, u.table, u.service)
	}
	if a.Method == config.MethodRelay {
		c.relay(ctx, a)
	} else {
		c.local(ctx, a)
	}
}

func (c *checking) local(ctx context.Context, a *action) {
	if a.User != "" {
		if _, err := c.s.deliveryUser(ctx, a); err != nil {
			c.add(Problem{Pos: a.Pos, Service: table.UserInfo.String(), Cause: unprefixed(err, a.Pos)})
		}
	}
	if a.Method == config.MethodMDA && (a.command.Raw() || a.wrapper.Raw()) {
		c.add(Problem{Pos: a.Pos, Warning: true, Cause: "the modifier raw hands shell characters of strangers' addresses to the mda command"})
	}
	if a.Method == config.MethodForwardOnly {
		c.add(Problem{Pos: a.Pos, Cause: "not supported yet: forward-only"})
	}
}

// relay reads every URL and source address that can be listed. Rows by
// destination or sender cannot: they are read when they are used.
func (c *checking) relay(ctx context.Context, a *action) {
	fail := func(ref config.TableRef, s table.Service, err error) {
		if err != nil {
			c.add(Problem{Pos: a.Pos, Table: string(ref), Service: s.String(), Cause: causeOf(err, string(ref))})
		}
	}
	if a.host != nil {
		_, err := c.s.fetchHosts(ctx, a)
		fail(a.Host, table.RelayHost, err)
	}
	if a.src != nil {
		fail(a.Src, table.Source, c.s.routeSource(ctx, a, &Route{}))
	}
	c.authority(ctx, a.Pos, a.CATable, UseServer)
	if a.PKIName != "" || a.PKITable != "" {
		c.certificate(ctx, a.Pos, names(a.PKIName), CertificateRequest{Action: a.Name})
	}
}

func (c *checking) match(ctx context.Context, m *config.Match) {
	for _, u := range matchUses(m) {
		c.use(ctx, m.Pos, u.table, u.service)
	}
}

// causeOf is an error without the name of the table, which the problem has
// already.
func causeOf(err error, name string) string {
	return strings.TrimPrefix(err.Error(), "table "+name+": ")
}

// unprefixed is an error without the position, which the problem has already.
func unprefixed(err error, pos config.Pos) string {
	return strings.TrimPrefix(err.Error(), pos.String()+": ")
}
