// Package backends opens declared tables by their kind.
package backends

import (
	"context"
	"fmt"

	"tabard/backends/file"
	"tabard/backends/ldap"
	"tabard/backends/postgres"
	"tabard/backends/proc"
	"tabard/backends/socketmap"
	"tabard/backends/sqlite"
	"tabard/backends/static"
	"tabard/internal/config"
	"tabard/table"
)

// Open opens the backend of a declared table. Kinds that this version does not
// have are an error. A source that is unreachable is not, where it can heal:
// see table.Pinger.
func Open(ctx context.Context, c config.Table, o table.Options) (table.Backend, error) {
	open := map[string]func(context.Context, config.Table, table.Options) (table.Backend, error){
		"static":    static.Open,
		"file":      file.Open,
		"sqlite":    sqlite.Open,
		"postgres":  postgres.Open,
		"ldap":      ldap.Open,
		"socketmap": socketmap.Open,
	}[c.Kind]
	switch {
	case open != nil:
	case c.Kind == "db":
		return nil, fmt.Errorf("%s: table %s: tables of kind %q are not supported yet", c.Pos, c.Name, c.Kind)
	default:
		open = proc.Open // `proc:/path` itself, and TYPE, whose program is table-TYPE
	}
	b, err := open(ctx, c, o)
	if err != nil {
		return nil, fmt.Errorf("%s: table %s: %w", c.Pos, c.Name, err)
	}
	return b, nil
}
