package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"tabard/backends/sqltable"
	"tabard/table"
	"tabard/table/gather"
)

// setFormat asks a query for many keys at once. SQLite has no LATERAL, but a
// scalar subquery may refer to what is around it: the rows of each key come as
// one JSON text. The first verb takes the names of the columns, the second the
// query with the key in place of its parameter, the last the columns
// as values: a blob is text or nothing to us, but could be taken for JSON.
//
// The key stands in it as an expression: as a column it would bring a collation
// of its own, and "? = name" would no longer compare as the column name does.
const setFormat = `SELECT (WITH tabard_answer(%[1]s) AS (%[2]s
) SELECT json_group_array(json_array(%[4]s)) FROM (SELECT * FROM tabard_answer LIMIT %[3]d))
FROM json_each(?1) AS tabard_keys ORDER BY tabard_keys.key`

// Many implements sqltable.Asker.
func (p *pool) Many(ctx context.Context, q *sqltable.Query, keys []string) ([][]table.Row, error) {
	h, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer h.users.Done()
	st, err := h.prepare(ctx, q)
	if err != nil {
		return nil, err
	}
	width := int(st.width.Load())
	if width <= 0 {
		return p.loop(ctx, q, keys)
	}
	answers, err := h.askSet(ctx, st, q, width, keys)
	switch {
	case err == nil:
		return answers, nil
	case ctx.Err() != nil:
		return nil, err
	case isSyntax(err):
		st.width.Store(-1) // what it is cannot stand within another statement
		return p.loop(ctx, q, keys)
	}
	return nil, fmt.Errorf("%w: %w", gather.ErrSplit, err)
}

func isSyntax(err error) bool {
	return strings.Contains(err.Error(), "SQL logic error")
}

// loop asks for one key after the other.
func (p *pool) loop(ctx context.Context, q *sqltable.Query, keys []string) ([][]table.Row, error) {
	answers := make([][]table.Row, len(keys))
	for i, key := range keys {
		var err error
		if answers[i], err = p.One(ctx, q, q.Args(key)); err != nil {
			return nil, fmt.Errorf("%w: %w", gather.ErrSplit, err)
		}
	}
	return answers, nil
}

// askSet asks by one statement.
func (h *handle) askSet(ctx context.Context, p *prepared, q *sqltable.Query, width int, keys []string) ([][]table.Row, error) {
	st, err := h.prepareSet(ctx, p, q, width)
	if err != nil {
		return nil, err
	}
	list, err := setKeys(q, keys)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, list)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	answers := make([][]table.Row, 0, len(keys))
	var text sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		answer, err := decode(q, text)
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
	return answers, rows.Err()
}

// setSQL returns the statement that asks q, whose answers have width columns, for
// many keys. Its parameter is what setKeys returns.
func setSQL(q *sqltable.Query, width int) string {
	names, values := make([]string, width), make([]string, width)
	for i := range names {
		names[i] = fmt.Sprint("tabard_", i)
		values[i] = fmt.Sprintf("CASE typeof(%[1]s) WHEN 'real' THEN %[1]s ELSE CAST(%[1]s AS TEXT) END", names[i])
	}
	inner := q.With(func(part sqltable.Part) string {
		if len(q.Parts) == 1 {
			return "(tabard_keys.value||'')"
		}
		return fmt.Sprintf("(tabard_keys.value->>%d)", slices.Index(q.Parts, part))
	})
	return fmt.Sprintf(setFormat, strings.Join(names, ", "), inner, sqltable.MaxRows+1, strings.Join(values, ", "))
}

// setKeys returns the keys as a JSON array: of what the query asks of each, or of
// arrays where that is more than one part.
func setKeys(q *sqltable.Query, keys []string) (string, error) {
	var list any = keys
	if len(q.Parts) > 1 {
		all := make([][]any, len(keys))
		for i, key := range keys {
			all[i] = q.Args(key)
		}
		list = all
	} else if q.Parts[0] != sqltable.Key {
		all := make([]string, len(keys))
		for i, key := range keys {
			all[i] = q.Parts[0].Of(key)
		}
		list = all
	}
	text, err := json.Marshal(list)
	return string(text), err
}

// decode reads the rows of one key.
func decode(q *sqltable.Query, text []byte) ([]table.Row, error) {
	if string(text) == "[]" {
		return nil, nil
	}
	if !utf8.Valid(text) {
		return nil, errors.New("is not UTF-8 text")
	}
	var values [][]jsonText
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, err
	}
	budget := q.Budget()
	rows := make([]table.Row, 0, len(values))
	for _, v := range values {
		row := make(table.Row, len(v))
		for i := range v {
			row[i] = string(v[i])
		}
		if err := budget.Spend(row); err != nil {
			return nil, err
		}
		if rows = append(rows, row); !q.Many {
			break
		}
	}
	return slices.Clip(rows), nil
}

// jsonText is a value as text.
type jsonText string

// UnmarshalJSON implements json.Unmarshaler. Numbers here are no integers, and
// are refused as they are in a row.
func (j *jsonText) UnmarshalJSON(b []byte) error {
	if b[0] != '"' && string(b) != "null" {
		return errors.New("is a number with a fraction, not text")
	}
	if err := json.Unmarshal(b, (*string)(j)); err != nil {
		return err
	}
	if strings.ContainsRune(string(*j), 0) {
		return errors.New("has a NUL character")
	}
	return nil
}
