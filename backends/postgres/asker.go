package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"tabard/backends/sqltable"
	"tabard/table"
	"tabard/table/gather"
)

// asker puts queries to the server.
type asker struct {
	pool  *pool
	lists map[*sqltable.Query]*gather.Gatherer[struct{}, []table.Row]
}

// newAsker returns an asker that asks once for all who wait for a list.
func newAsker(p *pool, queries *sqltable.Queries, g gather.Options) *asker {
	a := &asker{p, make(map[*sqltable.Query]*gather.Gatherer[struct{}, []table.Row])}
	for _, q := range queries.All() {
		if len(q.Parts) > 0 {
			continue
		}
		a.lists[q] = gather.New(func(ctx context.Context, waiting []struct{}) ([][]table.Row, error) {
			rows, err := a.One(ctx, q, nil)
			if err != nil {
				return nil, err
			}
			return slices.Repeat([][]table.Row{rows}, len(waiting)), nil
		}, g)
	}
	return a
}

// One implements sqltable.Asker.
func (a *asker) One(ctx context.Context, q *sqltable.Query, args []any) ([]table.Row, error) {
	var rows []table.Row
	err := a.pool.do(ctx, func(ctx context.Context, l *link) (err error) {
		rows, err = l.one(ctx, q, args)
		return err
	})
	switch {
	case err == nil:
		return rows, nil
	case q.Secret():
		return nil, withoutValues(err)
	}
	return nil, err // and not rows: after a caller who gave up, they may yet come
}

// Many implements sqltable.Asker.
func (a *asker) Many(ctx context.Context, q *sqltable.Query, keys []string) ([][]table.Row, error) {
	var all [][]table.Row
	err := a.pool.do(ctx, func(ctx context.Context, l *link) (err error) {
		all, err = l.many(ctx, q, keys)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// List implements sqltable.Asker.
func (a *asker) List(ctx context.Context, q *sqltable.Query, yield func(table.Row) bool) error {
	rows, err := a.lists[q].Do(ctx, struct{}{})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if !yield(r) {
			break
		}
	}
	return nil
}

// withoutValues takes the server's words from an error about data, which may
// quote a password.
func withoutValues(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && !strings.HasPrefix(e.Code, "42") && !strings.HasPrefix(e.Code, "5") && !strings.HasPrefix(e.Code, "08") {
		return fmt.Errorf("the server refuses a value (SQLSTATE %s)", e.Code)
	}
	return err
}
