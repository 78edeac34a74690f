package sqltable

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tabard/table"
	"tabard/table/gather"
)

// Bounds of one answer. A list may have a hundred times as many rows.
const (
	MaxRows  = 10000
	MaxBytes = 16 << 20
)

// Query is one statement, checked and ready to be prepared.
type Query struct {
	Name  string // as in a configuration: query_alias, fetch_source
	SQL   string // its parameter number i is Parts[i-1]
	Parts []Part // what its parameters are, each once; none: a list
	Many  bool   // all rows answer, as columns of one Row; else the first one

	columns   []int // how many columns the service can read
	statement statement
	whole     bool // nothing but the whole key is asked for
	waiting   *gather.Gatherer[string, []table.Row]
}

// With returns the statement with each parameter written by write, to stand within
// another one.
func (q *Query) With(write func(Part) string) string { return q.statement.with(write) }

// Args returns the values of the parameters for a key.
func (q *Query) Args(key string) []any {
	if q.whole {
		return []any{key}
	}
	return q.args(key, "")
}

func (q *Query) args(key, password string) []any {
	all := make([]any, len(q.Parts))
	for i, p := range q.Parts {
		all[i] = p.Of(key)
		if p == Password {
			all[i] = password
		}
	}
	return all
}

// Secret reports whether a password is among the parameters: what the database
// says of their values must not be repeated.
func (q *Query) Secret() bool { return slices.Contains(q.Parts, Password) }

// asks reports whether a key has all that the query asks for. Else nothing can be
// meant by it, as Postfix has it: @example.org has no user, root no domain.
func (q *Query) asks(key string) bool {
	return q.whole || !slices.ContainsFunc(q.Parts, func(p Part) bool {
		return p != Key && p != Password && p.Of(key) == ""
	})
}

// Fits returns an error if the query's service cannot read n columns.
func (q *Query) Fits(n int) error {
	if slices.Contains(q.columns, n) {
		return nil
	}
	_, service, _ := strings.Cut(q.Name, "_")
	return fmt.Errorf("selects %d columns, %s needs %d", n, service, q.columns[0])
}

// Budget returns the bounds of an answer to the query.
func (q *Query) Budget() Budget {
	if len(q.Parts) == 0 {
		return Budget{100 * MaxRows, MaxBytes}
	}
	return Budget{MaxRows, MaxBytes}
}

// Budget is what an answer may still have.
type Budget struct{ Rows, Bytes int }

// Spend takes a row from the budget. It is an error if there is none left.
func (b *Budget) Spend(row table.Row) error {
	b.Rows--
	for _, c := range row {
		b.Bytes -= len(c)
	}
	if b.Rows < 0 || b.Bytes < 0 {
		return errors.New("answer is too large")
	}
	return nil
}

// shape says how many columns a service's answers may have, and whether several
// rows answer one key.
func shape(s table.Service) (columns []int, many bool) {
	switch s {
	case table.Credentials:
		return []int{2, 1}, false
	case table.UserInfo:
		return []int{3, 1}, false
	case table.Cert, table.DKIM:
		return []int{2, 1}, true
	case table.RelayHost:
		return []int{1, 2, 3}, true // priority and weight may follow the URL
	case table.Alias, table.MailAddrMap, table.CA:
		return []int{1}, true
	}
	return []int{1}, false
}
