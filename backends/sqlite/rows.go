package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"tabard/backends/sqltable"
	"tabard/table"
)

// One implements sqltable.Asker.
func (p *pool) One(ctx context.Context, q *sqltable.Query, args []any) ([]table.Row, error) {
	var rows []table.Row
	err := p.each(ctx, q, args, func(r table.Row) bool {
		rows = append(rows, r)
		return q.Many // one row is all that counts otherwise
	})
	return rows, err
}

// List implements sqltable.Asker.
func (p *pool) List(ctx context.Context, q *sqltable.Query, yield func(table.Row) bool) error {
	return p.each(ctx, q, nil, yield)
}

// each runs a query and gives its rows to yield until yield returns false.
func (p *pool) each(ctx context.Context, q *sqltable.Query, args []any, yield func(table.Row) bool) error {
	h, err := p.acquire()
	if err != nil {
		return err
	}
	defer h.users.Done()
	st, err := h.prepare(ctx, q)
	if err != nil {
		return err
	}
	if err = st.run(ctx, q, args, yield); err != nil && q.Secret() {
		return withoutValues(err)
	}
	return err
}

func (p *prepared) run(ctx context.Context, q *sqltable.Query, args []any, yield func(table.Row) bool) error {
	rows, err := p.one.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	if err := q.Fits(len(names)); err != nil {
		return err
	}
	p.width.CompareAndSwap(0, int32(len(names)))
	return scan(rows, names, q.Budget(), yield)
}

func scan(rows *sql.Rows, names []string, budget sqltable.Budget, yield func(table.Row) bool) error {
	values := make([]any, len(names))
	targets := make([]any, len(names))
	for i := range values {
		targets[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		row, err := textRow(values, names)
		if err == nil {
			err = budget.Spend(row)
		}
		if err != nil {
			return err
		}
		if !yield(row) {
			return nil
		}
	}
	return rows.Err()
}

// withoutValues takes SQLite's words from an error that may quote a password: all
// but those of the file and of the caller.
func withoutValues(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
		sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT:
		return err
	}
	return fmt.Errorf("SQLite refuses a value (code %d)", e.Code())
}

// textRow converts the values of a row. A row of nothing but NULL is an answer
// too: a user without uid, gid and home.
func textRow(values []any, names []string) (table.Row, error) {
	row := make(table.Row, len(values))
	for i, v := range values {
		s, err := text(v)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", names[i], err)
		}
		row[i] = s
	}
	return row, nil
}

// text converts one value: text, integer, boolean, or a blob that holds text.
func text(v any) (string, error) {
	var s string
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		s = v
	case []byte:
		s = string(v)
	case int64:
		return strconv.FormatInt(v, 10), nil
	case bool:
		if v {
			return "1", nil
		}
		return "0", nil
	default:
		return "", fmt.Errorf("is %T, not text", v)
	}
	if !utf8.ValidString(s) {
		return "", errors.New("is not UTF-8 text")
	}
	if strings.ContainsRune(s, 0) {
		return "", errors.New("has a NUL character")
	}
	return s, nil
}

// try checks a query against the database, and its columns where the statement can
// tell them without being run.
func (h *handle) try(ctx context.Context, q *sqltable.Query) error {
	st, err := h.prepare(ctx, q)
	if err != nil {
		return err
	}
	args := make([]any, len(q.Parts))
	for i := range args {
		args[i] = ""
	}
	rows, err := st.one.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	return q.Fits(len(names))
}
