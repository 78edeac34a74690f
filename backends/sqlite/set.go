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

// rows returns the rows of a query for a key. Questions that wait for the
// database at the same time are put to it as one.
func (t *Table) rows(ctx context.Context, q *query, key string) ([]table.Row, error) {
	if !utf8.ValidString(key) {
		return t.one(ctx, q, key) // JSON would make another key of it
	}
	return q.waiting.Do(ctx, key)
}

// one asks for one key.
func (t *Table) one(ctx context.Context, q *query, key string) ([]table.Row, error) {
	var rows []table.Row
	err := t.each(ctx, q, key, func(r table.Row) bool {
		rows = append(rows, r)
		return q.many // one row is all that counts otherwise
	})
	return rows, err
}

// ask answers keys in one round trip.
func (t *Table) ask(ctx context.Context, q *query, keys []string) ([][]table.Row, error) {
	width := int(q.width.Load())
	if len(keys) == 1 || width <= 0 {
		return t.loop(ctx, q, keys)
	}
	answers, err := t.set(ctx, q, width, keys)
	switch {
	case err == nil:
		return answers, nil
	case ctx.Err() != nil:
		return nil, err
	case isSyntax(err):
		q.width.Store(-1) // what it is cannot stand within another statement
		return t.loop(ctx, q, keys)
	}
	return nil, fmt.Errorf("%w: %w", gather.ErrSplit, err)
}

func isSyntax(err error) bool {
	return strings.Contains(err.Error(), "SQL logic error")
}

func (t *Table) loop(ctx context.Context, q *query, keys []string) ([][]table.Row, error) {
	answers := make([][]table.Row, len(keys))
	for i, key := range keys {
		var err error
		if answers[i], err = t.one(ctx, q, key); err != nil {
			if len(keys) > 1 {
				err = fmt.Errorf("%w: %w", gather.ErrSplit, err)
			}
			return nil, err
		}
	}
	return answers, nil
}

// set asks by one statement.
func (t *Table) set(ctx context.Context, q *query, width int, keys []string) ([][]table.Row, error) {
	h, err := t.pool.acquire()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.name, err)
	}
	defer h.users.Done()
	st, err := h.statement(ctx, q.asSet(width))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.name, err)
	}
	list, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, string(list))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.name, err)
	}
	defer rows.Close()
	answers := make([][]table.Row, 0, len(keys))
	var text sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		answer, err := q.decode(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", q.name, err)
		}
		answers = append(answers, answer)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", q.name, err)
	}
	return answers, nil
}

// asSet returns the query that asks for many keys.
func (q *query) asSet(width int) *query {
	q.once.Do(func() {
		names, values := make([]string, width), make([]string, width)
		for i := range names {
			names[i] = fmt.Sprint("tabard_", i)
			values[i] = fmt.Sprintf("CASE typeof(%[1]s) WHEN 'real' THEN %[1]s ELSE CAST(%[1]s AS TEXT) END", names[i])
		}
		inner, _ := numberParams(strings.TrimRight(q.text, "; \t\r\n"), "(tabard_keys.value||'')")
		q.set = &query{name: q.name, sql: fmt.Sprintf(setFormat, strings.Join(names, ", "), inner, maxRows+1, strings.Join(values, ", "))}
	})
	return q.set
}

// decode reads the rows of one key.
func (q *query) decode(text []byte) ([]table.Row, error) {
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
	budget := budget{rows: maxRows, bytes: maxBytes}
	rows := make([]table.Row, 0, len(values))
	for _, v := range values {
		row := make(table.Row, len(v))
		for i := range v {
			row[i] = string(v[i])
		}
		if err := budget.spend(row); err != nil {
			return nil, err
		}
		if rows = append(rows, row); !q.many {
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
