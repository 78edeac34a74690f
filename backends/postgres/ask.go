package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"tabard/backends/sqltable"
	"tabard/table"
	"tabard/table/gather"
)

// set is how a query is asked for several keys at once: by one statement, or,
// where none can be made, by the same statement several times in one go.
type set struct {
	sql string // takes an array for each of the query's parts; empty: there is none
}

// The arrays, the columns that their values have, and the query. One that has such
// names of its own means its own.
const setFormat = `SELECT tabard_keys.tabard_ord, tabard_answers.*
FROM unnest(%s) WITH ORDINALITY AS tabard_keys (%s, tabard_ord), LATERAL (%s
) AS tabard_answers`

// column names the values of a part in a set's statement.
func column(p sqltable.Part) string {
	switch p {
	case sqltable.User:
		return "tabard_user"
	case sqltable.Domain:
		return "tabard_domain"
	}
	return "tabard_key"
}

// formats asks for every column as text.
func formats() pgx.QueryResultFormats { return pgx.QueryResultFormats{pgx.TextFormatCode} }

// one asks a query. A key that its parameter's type cannot express is nobody's.
func (l *link) one(ctx context.Context, q *sqltable.Query, args []any) ([]table.Row, error) {
	rows, err := l.Query(ctx, q.SQL, append([]any{formats()}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	answer := answer{Budget: q.Budget()}
	for rows.Next() {
		if err := answer.add(q, rows.FieldDescriptions(), rows.RawValues()); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		rows.Close()
		if len(args) > 0 && unreadable(err) && l.typed(ctx, q) {
			return nil, nil
		}
		return nil, err
	}
	return answer.rows, q.Fits(len(rows.FieldDescriptions()))
}

// unreadable reports whether the server could not read a value: of the wrong
// form for its type, or out of its range.
func unreadable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && slices.Contains([]string{"22P02", "22003", "22007", "22008"}, e.Code)
}

// typed reports whether a parameter of the query, other than a password, is no
// text.
func (l *link) typed(ctx context.Context, q *sqltable.Query) bool {
	sd, err := l.PgConn().Prepare(ctx, "", q.SQL, nil)
	if err != nil {
		return false
	}
	for i, oid := range sd.ParamOIDs {
		if !isText(oid) && i < len(q.Parts) && q.Parts[i] != sqltable.Password {
			return true
		}
	}
	return false
}

func isText(oid uint32) bool {
	switch oid {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.UnknownOID:
		return true
	}
	return false
}

// many asks a query for several keys in one round trip.
func (l *link) many(ctx context.Context, q *sqltable.Query, keys []string) ([][]table.Row, error) {
	s, known := l.sets[q]
	if !known {
		var err error
		if s, err = l.makeSet(ctx, q); err != nil {
			return nil, err
		}
		l.sets[q] = s
	}
	var all [][]table.Row
	var err error
	if s.sql == "" {
		all, err = l.pipeline(ctx, q, keys)
	} else {
		all, err = l.askSet(ctx, q, s, keys)
	}
	var e *pgconn.PgError
	switch {
	case err == nil:
		return all, nil
	case errors.As(err, &e) && (lost(err) || outdated(err)), l.IsClosed():
		return nil, err // of all of them
	}
	// One of them may be at fault, or all together be too much: for the time of a
	// statement, or the size of an answer.
	return nil, fmt.Errorf("%w: %w", gather.ErrSplit, err)
}

// makeSet puts the key of each row, or what the query asks of it, where the query
// has its parameters, in the types that the server found for those.
func (l *link) makeSet(ctx context.Context, q *sqltable.Query) (set, error) {
	sd, err := l.PgConn().Prepare(ctx, "", q.SQL, nil)
	if err != nil {
		return set{}, err
	}
	values := make(map[sqltable.Part]string)
	var arrays, columns []string
	for i, part := range q.Parts {
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		columns = append(columns, column(part))
		values[part] = "tabard_keys." + column(part)
		if i >= len(sd.ParamOIDs) || isText(sd.ParamOIDs[i]) {
			continue
		}
		var name string
		err := l.QueryRow(ctx, "SELECT pg_catalog.format_type($1::oid, -1)", sd.ParamOIDs[i]).Scan(&name)
		if err != nil {
			return set{}, err
		}
		values[part] = "CAST(" + values[part] + " AS " + name + ")"
	}
	sql := fmt.Sprintf(setFormat, strings.Join(arrays, ", "), strings.Join(columns, ", "),
		q.With(func(p sqltable.Part) string { return values[p] }))
	many, err := l.PgConn().Prepare(ctx, "", sql, nil)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && !lost(err) {
		return set{}, nil
	}
	if err != nil || len(many.Fields) != len(sd.Fields)+1 {
		return set{}, err
	}
	return set{sql}, nil
}

// askSet asks by one statement. The rows of a key come in the query's order: a
// query that sorts is run for one key after the other.
func (l *link) askSet(ctx context.Context, q *sqltable.Query, s set, keys []string) ([][]table.Row, error) {
	rows, err := l.Query(ctx, s.sql, setArgs(q, keys)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	answers := newAnswers(q, len(keys))
	for rows.Next() {
		values := rows.RawValues()
		n, err := strconv.Atoi(string(values[0]))
		if err != nil || n < 1 || n > len(keys) {
			return nil, fmt.Errorf("row of key %q, there are %d", values[0], len(keys))
		}
		if err := answers.add(n-1, q, rows.FieldDescriptions()[1:], values[1:]); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return answers.rows(), q.Fits(len(rows.FieldDescriptions()) - 1)
}

// setArgs returns the arrays of a set's statement, with the formats before them.
func setArgs(q *sqltable.Query, keys []string) []any {
	args := []any{formats()}
	for _, part := range q.Parts {
		values := keys
		if part != sqltable.Key {
			values = make([]string, len(keys))
			for i, key := range keys {
				values[i] = part.Of(key)
			}
		}
		args = append(args, values)
	}
	return args
}

// pipeline sends the statement once for each key, and reads the answers together.
// pgx has batches too, but they choose the formats of columns themselves.
func (l *link) pipeline(ctx context.Context, q *sqltable.Query, keys []string) ([][]table.Row, error) {
	batch := &pgconn.Batch{}
	for _, key := range keys {
		values := make([][]byte, len(q.Parts))
		for i, part := range q.Parts {
			values[i] = []byte(part.Of(key))
		}
		batch.ExecParams(q.SQL, values, nil, nil, nil)
	}
	results := l.PgConn().ExecBatch(ctx, batch)
	answers := newAnswers(q, len(keys))
	err := readAll(results, answers, q)
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	return answers.rows(), err
}

// readAll reads the results of a pipeline.
func readAll(results *pgconn.MultiResultReader, answers *answers, q *sqltable.Query) error {
	for i := 0; results.NextResult(); i++ {
		rows := results.ResultReader()
		for rows.NextRow() {
			if err := answers.add(i, q, rows.FieldDescriptions(), rows.Values()); err != nil {
				return err
			}
		}
		if _, err := rows.Close(); err != nil {
			return err
		}
	}
	return nil
}

// answer collects rows within bounds.
type answer struct {
	rows []table.Row
	sqltable.Budget
}

func (a *answer) add(q *sqltable.Query, fields []pgconn.FieldDescription, values [][]byte) error {
	if err := q.Fits(len(fields)); err != nil {
		return err
	}
	if !q.Many && len(a.rows) > 0 {
		return nil // the first row is all that counts
	}
	row, err := textRow(fields, values)
	if err != nil {
		return err
	}
	a.rows = append(a.rows, row)
	return a.Spend(row)
}

// answers collects the rows of several keys. Together they may take no more room
// than two answers: who asks for a lot is asked for alone.
type answers struct {
	each []answer
	all  sqltable.Budget
}

func newAnswers(q *sqltable.Query, n int) *answers {
	a := &answers{each: make([]answer, n), all: sqltable.Budget{Rows: n * sqltable.MaxRows, Bytes: 2 * sqltable.MaxBytes}}
	for i := range a.each {
		a.each[i].Budget = q.Budget()
	}
	return a
}

func (a *answers) add(i int, q *sqltable.Query, fields []pgconn.FieldDescription, values [][]byte) error {
	n := len(a.each[i].rows)
	if err := a.each[i].add(q, fields, values); err != nil || len(a.each[i].rows) == n {
		return err
	}
	return a.all.Spend(a.each[i].rows[n])
}

func (a *answers) rows() [][]table.Row {
	all := make([][]table.Row, len(a.each))
	for i, each := range a.each {
		all[i] = each.rows
	}
	return all
}
