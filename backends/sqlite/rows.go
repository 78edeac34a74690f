package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"tabard/table"
)

// each runs a query and gives its rows to yield until yield returns false.
func (t *Table) each(ctx context.Context, q *query, key string, yield func(table.Row) bool) error {
	h, err := t.pool.acquire()
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	defer h.users.Done()
	st, err := h.statement(ctx, q)
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	var args []any
	if q.keyed {
		args = []any{key}
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	defer rows.Close()
	return scan(rows, q, yield)
}

func scan(rows *sql.Rows, q *query, yield func(table.Row) bool) error {
	names, err := rows.Columns()
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	if err := columnsFit(q, len(names)); err != nil {
		return err
	}
	q.width.CompareAndSwap(0, int32(len(names)))
	values := make([]any, len(names))
	targets := make([]any, len(names))
	for i := range values {
		targets[i] = &values[i]
	}
	budget := budget{rows: maxRows, bytes: maxBytes}
	if !q.keyed {
		budget.rows *= 100
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		row, err := textRow(values, names)
		if err == nil {
			err = budget.spend(row)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		if !yield(row) {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	return nil
}

// budget bounds an answer.
type budget struct{ rows, bytes int }

func (b *budget) spend(row table.Row) error {
	b.rows--
	for _, c := range row {
		b.bytes -= len(c)
	}
	if b.rows < 0 || b.bytes < 0 {
		return errors.New("answer is too large")
	}
	return nil
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

// prepare checks a query against the database, and its columns where the
// statement can tell them without being run.
func (t *Table) prepare(ctx context.Context, h *handle, q *query) error {
	st, err := h.statement(ctx, q)
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	var args []any
	if q.keyed {
		args = []any{""}
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return fmt.Errorf("%s: %w", q.name, err)
	}
	return columnsFit(q, len(names))
}
