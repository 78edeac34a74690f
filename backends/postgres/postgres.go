// Package postgres answers from PostgreSQL: Tabard's own provisioning schema, or
// any schema through queries in a configuration file with the keys of OpenSMTPD's
// table-postgres. It keeps no answers; where the database tells what changed, it
// passes that on.
//
// A server that is away is a temporary error, at once, and heals by itself: see
// pool. Questions that wait for each other are asked in one statement.
package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"tabard/backends/sqltable"
	"tabard/internal/config"
	"tabard/internal/pgsource"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/gather"
)

// Table is a database that answers by queries.
type Table struct {
	*sqltable.Table
	pool    *pool
	channel string
}

var (
	_ table.Backend       = (*Table)(nil)
	_ table.Pinger        = (*Table)(nil)
	_ table.Validator     = (*Table)(nil)
	_ table.Watcher       = (*Table)(nil)
	_ table.Authenticator = (*Table)(nil)
)

// Open reads the URL or configuration file. The first question connects, so that
// a server that is away does not keep ours from starting. Ping tells.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	src, err := readSource(c.Source)
	if err != nil {
		return nil, err
	}
	cc, err := pgsource.Parse(src.conninfo)
	if err != nil {
		return nil, err
	}
	bounds := gather.Options{Timeout: src.timeout + 2*time.Second}
	p := newPool(cc, src.size, src.timeout)
	return &Table{sqltable.New(newAsker(p, src.queries, bounds), src.queries, o, bounds), p, src.channel}, nil
}

// Ping connects and prepares every query, without running any. Tabard's own
// schema must have the version that this program knows.
func (t *Table) Ping(ctx context.Context) error {
	return t.pool.do(ctx, func(ctx context.Context, l *link) error {
		if t.Queries().Own {
			if err := t.checkVersion(ctx); err != nil {
				return err
			}
		}
		for _, q := range t.Queries().All() {
			sd, err := l.PgConn().Prepare(ctx, "", q.SQL, nil)
			if err == nil {
				err = q.Fits(len(sd.Fields))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", q.Name, err)
			}
		}
		return nil
	})
}

// checkVersion compares the schema with the program's.
func (t *Table) checkVersion(ctx context.Context) error {
	db := stdlib.OpenDB(*t.pool.config.Copy())
	defer func() { _ = db.Close() }() // it was only read from
	have, want, err := migrations.Status(ctx, db, migrations.Postgres, migrations.Provision)
	if err != nil {
		return err
	}
	if have < want {
		return fmt.Errorf("database %s: provisioning schema has version %d, version %d is needed: run tabard migrate", t.pool.config.Database, have, want)
	}
	return nil
}

// Close ends what is being asked, and closes the connections.
func (t *Table) Close() error {
	t.pool.close()
	return nil
}
