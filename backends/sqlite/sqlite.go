// Package sqlite answers from SQLite databases: Tabard's own provisioning
// schema, or any schema through queries in a configuration file with the keys of
// OpenSMTPD's table-sqlite. It opens databases read-only and keeps no answers: a
// row that was committed is seen by the next question, and a watch tells of it.
//
// A database that is missing, locked or damaged is a temporary error, and heals
// when the file does.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"tabard/backends/sqltable"
	"tabard/internal/config"
	"tabard/migrations"
	"tabard/table"
	"tabard/table/gather"
)

// Table is a database that answers by queries.
type Table struct {
	*sqltable.Table
	pool *pool
}

var (
	_ table.Backend       = (*Table)(nil)
	_ table.Pinger        = (*Table)(nil)
	_ table.Watcher       = (*Table)(nil)
	_ table.Validator     = (*Table)(nil)
	_ table.Authenticator = (*Table)(nil)
)

// Open reads the configuration file, if there is one; the database itself is
// opened by the first question, so that a missing file does not keep a server
// from starting. Ping tells.
func Open(_ context.Context, c config.Table, o table.Options) (table.Backend, error) {
	src, err := readSource(c.Source)
	if err != nil {
		return nil, err
	}
	p := &pool{path: src.path, done: make(chan struct{})}
	return &Table{sqltable.New(p, src.queries, o, gather.Options{}), p}, nil
}

// Ping opens the database and prepares every query. Tabard's own schema must
// have the version that this program knows.
func (t *Table) Ping(ctx context.Context) error {
	h, err := t.pool.acquire()
	if errors.Is(err, os.ErrNotExist) && t.Queries().Own {
		return fmt.Errorf("%w: tabard migrate makes it", err)
	}
	if err != nil {
		return err
	}
	defer h.users.Done()
	if t.Queries().Own {
		have, want, err := migrations.Status(ctx, h.db, migrations.SQLite, migrations.Provision)
		if err != nil {
			return err
		}
		if have < want {
			return fmt.Errorf("%s: provisioning schema has version %d, version %d is needed: run tabard migrate", t.pool.path, have, want)
		}
	}
	for _, q := range t.Queries().All() {
		if err := h.try(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q.Name, err)
		}
	}
	return nil
}

// Close waits for the questions that are being asked, and closes the database.
func (t *Table) Close() error {
	t.pool.close()
	return nil
}
