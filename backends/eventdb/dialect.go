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

// rows is how many rows one statement may have: SQLite takes 32,766 parameters.
func (d dialect) rows() int {
	if d == migrations.Postgres {
		return eventlog.MaxBatch
	}
	return 200
}

// insert returns the statement that adds events of one kind, which come with a batch.
func (d dialect) insert(k eventlog.Kind, list []eventlog.Event, batch int64) (query string, args []any) {
	head := "INSERT INTO " + tableOf(k) + " (" + columnsOf(k) + ", batch) "
	const tail = " ON CONFLICT DO NOTHING"
	if d == migrations.Postgres {
		text, args := unnest(list)
		args = append(args, batch)
		return head + "SELECT *, $" + strconv.Itoa(len(args)) + "::bigint FROM unnest(" + text + ")" + tail, args
	}
	var b strings.Builder
	b.WriteString(head + "VALUES ")
	for i, e := range list {
		fields := e.Fields()
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("(" + strings.Repeat("?,", len(fields)) + "?)")
		for _, f := range fields {
			switch v := f.Value.(type) {
			case *string:
				args = append(args, *v)
			case *int64:
				args = append(args, *v)
			case *time.Time:
				args = append(args, d.time(*v))
			}
		}
		args = append(args, batch)
	}
	return b.String() + tail, args
}

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
