package eventdb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"tabard/internal/eventlog"
	"tabard/migrations"
)

// common says for SQLite, which has no statistics, what is cheap: to go through all
// events in the order of time, because many of them are wanted or because there are few.
// Otherwise the index of the domain is. One's own domain is in nearly every message: a
// question for the last minute would begin with a list of all mail there ever was.
type common struct {
	from, to bool // the domain of senders, and of recipients
}

const (
	sampleRows  = 1000
	commonShare = 10 // one in so many rows of the newest
)

// common looks at the newest events in the time of a query.
func (d *DB) common(ctx context.Context, db *sql.DB, q *Query) (c common, err error) {
	if d.d != migrations.SQLite || q.Domain == "" {
		return c, nil
	}
	window := clause{"at < ?", []any{int64(1) << 62}}
	if !q.Since.IsZero() {
		window.and("at >= ?", d.d.time(q.Since))
	}
	if !q.Until.IsZero() {
		window.and("at < ?", d.d.time(q.Until))
	}
	if len(q.batches) > 0 {
		from, to := times(q.batches)
		window.and("at >= ? AND at <= ?", d.d.time(from), d.d.time(to))
	}
	for table, is := range map[string]*bool{"log_messages": &c.from, "log_envelopes": &c.to} {
		var rows, of int
		err := db.QueryRowContext(ctx, fmt.Sprintf("SELECT count(*), coalesce(sum(domain = ?), 0) FROM (SELECT domain FROM %s WHERE %s ORDER BY at DESC, key DESC LIMIT %d)",
			table, window.text, sampleRows), append([]any{strings.ToLower(q.Domain)}, window.args...)...).Scan(&rows, &of)
		if err != nil {
			return c, err
		}
		*is = rows < sampleRows || of*commonShare >= rows
	}
	return c, nil
}

// byDomain is the condition that an event is about mail from or to a domain. A + keeps
// SQLite from the index.
func byDomain(k eventlog.Kind, domain string, c common) []clause {
	args := []any{strings.ToLower(domain)}
	to, from := clause{"domain = ?", args}, clause{"message IN (SELECT id FROM log_messages WHERE domain = ?)", args}
	if c.to {
		to.text = "+domain = ?"
	}
	if c.from {
		from.text = "EXISTS (SELECT 1 FROM log_messages m WHERE m.id = " + tableOf(k) + ".message AND +m.domain = ?)"
	}
	switch k {
	case eventlog.KindMessage:
		of, given := clause{"domain = ?", args}, clause{"id IN (SELECT message FROM log_envelopes WHERE domain = ?)", args}
		if c.from {
			of.text = "+domain = ?"
		}
		if c.to {
			given.text = "EXISTS (SELECT 1 FROM log_envelopes e WHERE e.message = log_messages.id AND +e.domain = ?)"
		}
		return []clause{of, given}
	case eventlog.KindEnvelope, eventlog.KindAttempt:
		return []clause{to, from}
	case eventlog.KindResult:
		from.text = "message <> '' AND " + from.text
		return []clause{to, from}
	}
	return nil
}
