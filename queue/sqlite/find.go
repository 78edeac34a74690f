package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tabard/queue"
)

// fields are what queue.Fields are in SQL; %s stands for what state needs.
func fieldText(f queue.Field) string {
	switch f {
	case queue.FieldSender:
		return "m.sender"
	case queue.FieldSenderDomain:
		return domainText("m.sender")
	case queue.FieldRecipient:
		return "e.address"
	case queue.FieldGiven:
		return "e.recipient"
	case queue.FieldDomain:
		return domainText("e.address")
	case queue.FieldDestination:
		return "e.destination"
	case queue.FieldAction:
		return "e.action"
	case queue.FieldError:
		return "e.last_error"
	case queue.FieldAttempts:
		return "e.attempts"
	}
	return "''"
}

// domainText is what follows the last '@', in lower case.
func domainText(column string) string {
	return fmt.Sprintf("lower(substr(%[1]s, length(rtrim(%[1]s, replace(%[1]s, '@', ''))) + 1))", column)
}

// where is the text of conditions, with their values.
type where struct {
	text    []string
	args    []any
	senders bool // messages is needed
}

func (w *where) add(text string, args ...any) {
	w.text = append(w.text, text)
	w.args = append(w.args, args...)
}

func (w *where) String() string {
	if len(w.text) == 0 {
		return "TRUE"
	}
	return strings.Join(w.text, " AND ")
}

// filter adds what a query asks.
func (w *where) filter(q *queue.Query) error {
	if len(q.IDs) > 0 {
		if err := w.ids(q.IDs); err != nil {
			return err
		}
	}
	for _, alternatives := range q.Conditions() {
		var texts []string
		var args []any
		for _, like := range alternatives {
			w.senders = w.senders || like.Field == queue.FieldSender
			texts = append(texts, fieldText(like.Field)+` LIKE ? ESCAPE '\'`)
			args = append(args, likeText(like.Glob))
		}
		w.add("("+strings.Join(texts, " OR ")+")", args...)
	}
	if !q.Before.IsZero() {
		w.add("e.created < ?", q.Before.UnixMilli())
	}
	if !q.Since.IsZero() {
		w.add("e.created >= ?", q.Since.UnixMilli())
	}
	if r := q.Attempts; r != nil {
		w.add("e.attempts >= ?", r.Min)
		if r.Max >= 0 {
			w.add("e.attempts <= ?", r.Max)
		}
	}
	if len(q.HeldFor) > 0 {
		w.add("e.held IN (SELECT value FROM json_each(?))", jsonText(q.Holds))
	}
	if q.Until != 0 {
		w.add("e.message < ?", int64(q.Until))
	}
	if len(q.States) > 0 {
		state, args := stateText(q)
		w.add("("+state+") IN (SELECT value FROM json_each(?))", append(args, jsonText(q.States))...)
	}
	return nil
}

// ids adds that an envelope or its message is one of those named.
func (w *where) ids(ids []string) error {
	var messages []int64
	var names []string
	for _, id := range ids {
		m, n, err := queue.ParseID(id)
		if err != nil {
			return err
		}
		messages = append(messages, int64(m))
		names = append(names, fmt.Sprintf("%d.%d", int64(m), n))
	}
	w.add("e.message IN (SELECT value FROM json_each(?))", jsonText(messages))
	w.add("(e.message || '.' || e.n IN (SELECT value FROM json_each(?)) OR e.message || '.-1' IN (SELECT value FROM json_each(?)))",
		jsonText(names), jsonText(names))
	return nil
}

// stateText is the state of an envelope.
func stateText(q *queue.Query) (text string, args []any) {
	active := make([]string, len(q.Active))
	for i, id := range q.Active {
		active[i] = fmt.Sprintf("%d.%d", int64(id.Message), id.N)
	}
	return `CASE WHEN e.held > 0 THEN 'held' WHEN e.message || '.' || e.n IN (SELECT value FROM json_each(?)) THEN 'active'
		WHEN e.next <= ? THEN 'due' ELSE 'deferred' END`, []any{jsonText(active), q.Now.UnixMilli()}
}

// jsonText writes plain values for json_each.
func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil { // plain values: it cannot
		return "[]"
	}
	return string(text)
}

// likeText is a glob as LIKE has it.
func likeText(glob string) string {
	return strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`, "*", "%").Replace(glob)
}

const lastTryText = "ifnull((SELECT max(a.at) FROM attempts a WHERE a.message = e.message AND a.n = e.n), 0)"

// Find implements queue.Store.
func (s *Store) Find(ctx context.Context, q queue.Query) ([]queue.Stored, error) {
	if err := s.health.check(); err != nil {
		return nil, err
	}
	var w where
	if err := w.filter(&q); err != nil {
		return nil, err
	}
	order := w.sorted(&q)
	rows, err := s.read.QueryContext(ctx, "SELECT "+columns+", ifnull(e.lease = ?, 0), "+lastTryText+from+"WHERE "+w.String()+" ORDER BY "+order+" LIMIT ?",
		append(append([]any{s.run}, w.args...), q.Limit)...)
	messages := make(map[queue.MessageID]*queue.Message)
	all, err := collect(rows, err, func(rows *sql.Rows) (queue.Stored, error) {
		var claimed bool
		var lastTry int64
		r, err := scan(rows, messages, &claimed, &lastTry)
		if r.Claimed = claimed; lastTry > 0 {
			r.LastTry = time.UnixMilli(lastTry)
		}
		return r, err
	})
	return all, s.health.judge(err)
}

// Tally implements queue.Store.
func (s *Store) Tally(ctx context.Context, q queue.Query, by []queue.Field) (queue.Tally, error) {
	var w where
	var args []any
	list, order := "", ""
	for i, f := range by {
		text := fieldText(f)
		switch f {
		case queue.FieldState:
			var more []any
			text, more = stateText(&q)
			args = append(args, more...)
		case queue.FieldSender, queue.FieldSenderDomain:
			w.senders = true
		}
		list += fmt.Sprintf("%s AS by%d, ", text, i)
		order += fmt.Sprintf(", by%d", i)
	}
	if err := w.filter(&q); err != nil {
		return queue.Tally{}, err
	}
	source := " FROM envelopes e "
	if w.senders {
		source = from
	}
	group := ""
	if len(by) > 0 {
		group = " GROUP BY " + strings.TrimPrefix(order, ", ")
	}
	rows, err := s.read.QueryContext(ctx, "SELECT "+list+"count(*) AS c, ifnull(min(e.created), 0), sum(count(*)) OVER (), count(*) OVER ()"+
		source+"WHERE "+w.String()+group+" ORDER BY c DESC"+order+" LIMIT ?", append(append(args, w.args...), q.Limit)...)
	if err != nil {
		return queue.Tally{}, s.health.judge(err)
	}
	defer rows.Close()
	var t queue.Tally
	for rows.Next() {
		g := queue.Group{Values: make([]string, len(by))}
		var into []any
		for i := range g.Values {
			into = append(into, &g.Values[i])
		}
		var oldest int64
		if err := rows.Scan(append(into, &g.Envelopes, &oldest, &t.Envelopes, &t.All)...); err != nil {
			return t, s.health.judge(err)
		}
		if g.Envelopes > 0 {
			g.Oldest = time.UnixMilli(oldest)
		}
		t.Groups = append(t.Groups, g)
	}
	return t, s.health.judge(rows.Err())
}
