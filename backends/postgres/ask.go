package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"tabard/table"
	"tabard/table/gather"
)

// set is how a query is asked for several keys at once: by one statement, or,
// where none can be made, by the same statement several times in one go.
type set struct {
	sql string // takes an array of keys; empty: there is none
}

// The names of the keys in such a statement. A query that has such names of its
// own means its own.
const setFormat = `SELECT tabard_keys.tabard_ord, tabard_answers.*
FROM unnest($1::text[]) WITH ORDINALITY AS tabard_keys (tabard_key, tabard_ord), LATERAL (%s
) AS tabard_answers`

// formats asks for every column as text.
func formats() pgx.QueryResultFormats { return pgx.QueryResultFormats{pgx.TextFormatCode} }

// one asks a query. A key that its parameter's type cannot express is nobody's.
func (l *link) one(ctx context.Context, q *query, args ...any) ([]table.Row, error) {
	rows, err := l.Query(ctx, q.sql, append([]any{formats()}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	answer := answer{budget: q.budget()}
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
	return answer.rows, q.fits(len(rows.FieldDescriptions()))
}

// unreadable reports whether the server could not read a value: of the wrong
// form for its type, or out of its range.
func unreadable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && slices.Contains([]string{"22P02", "22003", "22007", "22008"}, e.Code)
}

// typed reports whether the query's parameter is no text.
func (l *link) typed(ctx context.Context, q *query) bool {
	sd, err := l.PgConn().Prepare(ctx, "", q.sql, nil)
	return err == nil && len(sd.ParamOIDs) > 0 && !isText(sd.ParamOIDs[0])
}

func isText(oid uint32) bool {
	switch oid {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.UnknownOID:
		return true
	}
	return false
}

// many asks a query for several keys in one round trip.
func (l *link) many(ctx context.Context, q *query, keys []string) ([][]table.Row, error) {
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

// makeSet puts the key of each row where the query has its parameter, in the
// type that the server found for that.
func (l *link) makeSet(ctx context.Context, q *query) (set, error) {
	sd, err := l.PgConn().Prepare(ctx, "", q.sql, nil)
	if err != nil {
		return set{}, err
	}
	key := "tabard_keys.tabard_key"
	if len(sd.ParamOIDs) == 1 && !isText(sd.ParamOIDs[0]) {
		var name string
		err := l.QueryRow(ctx, "SELECT pg_catalog.format_type($1::oid, -1)", sd.ParamOIDs[0]).Scan(&name)
		if err != nil {
			return set{}, err
		}
		key = "CAST(" + key + " AS " + name + ")"
	}
	sql := fmt.Sprintf(setFormat, q.template.with(func(int) string { return key }))
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
func (l *link) askSet(ctx context.Context, q *query, s set, keys []string) ([][]table.Row, error) {
	rows, err := l.Query(ctx, s.sql, formats(), keys)
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
	return answers.rows(), q.fits(len(rows.FieldDescriptions()) - 1)
}

// pipeline sends the statement once for each key, and reads the answers together.
func (l *link) pipeline(ctx context.Context, q *query, keys []string) ([][]table.Row, error) {
	batch := &pgx.Batch{}
	for _, k := range keys {
		batch.Queue(q.sql, formats(), k)
	}
	results := l.SendBatch(ctx, batch)
	answers := newAnswers(q, len(keys))
	err := func() error {
		for i := range keys {
			rows, err := results.Query()
			if err != nil {
				return err
			}
			for rows.Next() {
				if err := answers.add(i, q, rows.FieldDescriptions(), rows.RawValues()); err != nil {
					rows.Close()
					return err
				}
			}
			rows.Close()
			if err := rows.Err(); err != nil {
				return err
			}
		}
		return nil
	}()
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	return answers.rows(), err
}

// answer collects rows within bounds.
type answer struct {
	rows []table.Row
	budget
}

func (a *answer) add(q *query, fields []pgconn.FieldDescription, values [][]byte) error {
	if err := q.fits(len(fields)); err != nil {
		return err
	}
	if !q.many && len(a.rows) > 0 {
		return nil // the first row is all that counts
	}
	row, err := textRow(fields, values)
	if err != nil {
		return err
	}
	a.rows = append(a.rows, row)
	return a.spend(row)
}

// answers collects the rows of several keys. Together they may take no more room
// than two answers: who asks for a lot is asked for alone.
type answers struct {
	each []answer
	all  budget
}

func newAnswers(q *query, n int) *answers {
	a := &answers{each: make([]answer, n), all: budget{n * maxRows, 2 * maxBytes}}
	for i := range a.each {
		a.each[i].budget = q.budget()
	}
	return a
}

func (a *answers) add(i int, q *query, fields []pgconn.FieldDescription, values [][]byte) error {
	n := len(a.each[i].rows)
	if err := a.each[i].add(q, fields, values); err != nil || len(a.each[i].rows) == n {
		return err
	}
	return a.all.spend(a.each[i].rows[n])
}

func (a *answers) rows() [][]table.Row {
	all := make([][]table.Row, len(a.each))
	for i, each := range a.each {
		all[i] = each.rows
	}
	return all
}
