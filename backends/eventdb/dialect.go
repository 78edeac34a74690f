package eventdb

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"tabard/internal/eventlog"
	"tabard/migrations"
)

// dialect is what differs between databases.
type dialect string

// unnest gives PostgreSQL a list for each column: one statement for any number of rows.
func unnest(list []eventlog.Event) (text string, args []any) {
	width := len(list[0].Fields())
	texts, numbers, times := make([][]string, width), make([][]int64, width), make([][]time.Time, width)
	for _, e := range list {
		for i, f := range e.Fields() {
			switch v := f.Value.(type) {
			case *string:
				texts[i] = append(texts[i], *v)
			case *int64:
				numbers[i] = append(numbers[i], *v)
			case *time.Time:
				times[i] = append(times[i], *v)
			}
		}
	}
	var parts []string
	for i := range width {
		kind := "text"
		switch {
		case numbers[i] != nil:
			kind = "bigint"
			args = append(args, numbers[i])
		case times[i] != nil:
			kind = "timestamptz"
			args = append(args, times[i])
		default:
			args = append(args, texts[i])
		}
		parts = append(parts, fmt.Sprintf("$%d::%s[]", i+1, kind))
	}
	return strings.Join(parts, ", "), args
}

// time is a time as a parameter.
func (d dialect) time(t time.Time) any {
	if d == migrations.Postgres {
		return t
	}
	return t.UnixMilli()
}

// text writes a query for the dialect. A name in braces compares without regard to
// case: by its collation in SQLite, by the index on lower() in PostgreSQL, where the
// parameter has to be in lower case, too. Parameters are ?.
func (d dialect) text(query string) string {
	if d != migrations.Postgres {
		return strings.NewReplacer("{", "", "}", "").Replace(query)
	}
	query = strings.NewReplacer("{", "lower(", "}", ")", "instr(", "strpos(").Replace(query)
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}

// scan returns where rows of a kind are scanned to, and what to do then.
func (d dialect) scan(e eventlog.Event) (to []any, done func()) {
	var later []func()
	for _, f := range e.Fields() {
		t, isTime := f.Value.(*time.Time)
		if !isTime || d == migrations.Postgres {
			to = append(to, f.Value)
			continue
		}
		var ms int64
		to = append(to, &ms)
		later = append(later, func() { *t = time.UnixMilli(ms) })
	}
	return to, func() {
		for _, f := range later {
			f()
		}
		for _, f := range e.Fields() {
			if t, ok := f.Value.(*time.Time); ok {
				*t = t.UTC()
			}
		}
	}
}
