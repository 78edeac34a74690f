package eventdb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"tabard/internal/address"
	"tabard/internal/eventlog"
)

// Query says which events are wanted. What is empty does not restrict.
type Query struct {
	Kinds        []eventlog.Kind
	Since, Until time.Time
	// Address is of a sender, or of a recipient before or after aliases; NullSender: of
	// messages without a sender.
	Address string
	// Domain is of a sender's or a recipient's address.
	Domain string
	// ID is of a session, a message or an envelope, or a Message-ID; also of the
	// sessions that a message came and went by, and of the reports about it.
	ID string
	// Result is one of eventlog.Results, or the outcome of an attempt.
	Result string
	// Text occurs anywhere in an event, without regard to case.
	Text string
	// Newest is how many events there are at most: the newest. 0: all.
	Newest int
	// Upto leaves out what came after a mark.
	Upto *Mark

	batches []batch // only what came with these
	common  common
}

const (
	pageRows = 1000
	mostRows = 32_000 // of later pages, each of which is twice as long as the one before
	maxIDs   = 500    // messages or sessions that one id leads to
)

// clause is a condition with its parameters.
type clause struct {
	text string
	args []any
}

func (c *clause) and(text string, args ...any) {
	if c.text != "" {
		c.text += " AND "
	}
	c.text += "(" + text + ")"
	c.args = append(c.args, args...)
}

// Select gives the events of a query to f in order of time, and stops at its first
// error. Events are read in pages: a long answer holds up nobody who writes.
func (d *DB) Select(ctx context.Context, q Query, f func(eventlog.Event) error) error {
	db, err := d.handle()
	if err != nil {
		return err
	}
	if q.common, err = d.common(ctx, db, &q); err != nil {
		return err
	}
	var ids *related
	if q.ID != "" {
		if ids, err = d.relate(ctx, db, q.ID); err != nil {
			return err
		}
	}
	var all []*stream
	for _, k := range eventlog.Kinds() {
		if len(q.Kinds) > 0 && !slices.Contains(q.Kinds, k) {
			continue
		}
		for _, where := range d.where(k, &q, ids) {
			all = append(all, &stream{d: d, db: db, kind: k, where: where, newest: q.Newest})
		}
	}
	f = distinct(f)
	if q.Newest > 0 {
		return newest(ctx, all, q.Newest, f)
	}
	for {
		e, err := first(ctx, all)
		if e == nil || err != nil {
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
}

// distinct leaves out an event that came before: one may meet several conditions. Equal
// ones come one after the other, but for others of the same instant.
func distinct(f func(eventlog.Event) error) func(eventlog.Event) error {
	type name struct {
		kind eventlog.Kind
		key  int64
	}
	var instant time.Time
	seen := map[name]bool{}
	return func(e eventlog.Event) error {
		h := e.Common()
		if !h.At.Equal(instant) {
			instant = h.At
			clear(seen)
		}
		n := name{e.Kind(), h.Key}
		if seen[n] {
			return nil
		}
		seen[n] = true
		return f(e)
	}
}

// newest gives the last n events of all streams to f, in order of time.
func newest(ctx context.Context, all []*stream, n int, f func(eventlog.Event) error) error {
	var list []eventlog.Event
	for _, s := range all {
		if err := s.page(ctx); err != nil {
			return err
		}
		list = append(list, s.ready...)
	}
	slices.SortStableFunc(list, compare)
	list = slices.CompactFunc(list, func(a, b eventlog.Event) bool {
		return a.Kind() == b.Kind() && *a.Common() == *b.Common()
	})
	for _, e := range list[max(0, len(list)-n):] {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// compare orders events by time. At the same time the order of kinds is that in which
// a message meets them; a session is told of when it ends, after all that it brought.
func compare(a, b eventlog.Event) int {
	if c := a.Common().At.Compare(b.Common().At); c != 0 {
		return c
	}
	return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Common().Key, b.Common().Key))
}

func rank(e eventlog.Event) int {
	if e.Kind() == eventlog.KindSession {
		return len(eventlog.Kinds())
	}
	return slices.Index(eventlog.Kinds(), e.Kind())
}

// first takes the next event of all streams; nil at the end.
func first(ctx context.Context, all []*stream) (eventlog.Event, error) {
	var best *stream
	for _, s := range all {
		if len(s.ready) == 0 && !s.ended {
			if err := s.page(ctx); err != nil {
				return nil, err
			}
		}
		if len(s.ready) > 0 && (best == nil || compare(s.ready[0], best.ready[0]) < 0) {
			best = s
		}
	}
	if best == nil {
		return nil, nil
	}
	e := best.ready[0]
	best.ready = best.ready[1:]
	return e, nil
}

// stream is the answer from one table.
type stream struct {
	d      *DB
	db     *sql.DB
	kind   eventlog.Kind
	where  clause
	newest int // only so many, and in reverse
	ready  []eventlog.Event
	last   *eventlog.Head
	rows   int // of the last page
	ended  bool
}

// page reads what comes next.
func (s *stream) page(ctx context.Context) error {
	where := s.where
	limit, order := min(max(2*s.rows, pageRows), mostRows), "at, key"
	if s.newest > 0 {
		limit, order = s.newest, "at DESC, key DESC"
	} else if s.last != nil {
		where.args = slices.Clone(where.args)
		where.and("(at, key) > (?, ?)", s.d.d.time(s.last.At), s.last.Key)
	}
	if where.text == "" {
		where.text = "1 = 1"
	}
	rows, err := s.db.QueryContext(ctx, s.d.d.text(fmt.Sprintf("SELECT %s FROM %s WHERE %s ORDER BY %s LIMIT %d",
		columnsOf(s.kind), tableOf(s.kind), where.text, order, limit)), where.args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells what Close would
	for rows.Next() {
		e := eventlog.New(s.kind)
		to, done := s.d.d.scan(e)
		if err := rows.Scan(to...); err != nil {
			return err
		}
		done()
		s.ready = append(s.ready, e)
	}
	if s.rows, s.ended = limit, len(s.ready) < limit; len(s.ready) > 0 {
		s.last = s.ready[len(s.ready)-1].Common()
	}
	return rows.Err()
}

// where returns conditions on the events of a kind, of which one has to hold; none if no
// event can be meant. Each is a question that an index answers: put together by OR they
// would be none to PostgreSQL.
func (d *DB) where(k eventlog.Kind, q *Query, ids *related) []clause {
	var c clause
	if !q.Since.IsZero() {
		c.and("at >= ?", d.d.time(q.Since))
	}
	if !q.Until.IsZero() {
		c.and("at < ?", d.d.time(q.Until))
	}
	switch {
	case q.Result == "":
	case k == eventlog.KindResult && slices.Contains(eventlog.Results(), q.Result):
		c.and("result = ?", q.Result)
	case k == eventlog.KindAttempt && slices.Contains([]string{eventlog.OK, eventlog.Temp, eventlog.Perm}, q.Result):
		c.and("outcome = ?", q.Result)
	default:
		return nil
	}
	if q.Text != "" {
		byText(&c, k, q.Text)
	}
	if q.Upto != nil {
		d.d.upto(&c, q.Upto)
	}
	if len(q.batches) > 0 {
		d.d.inBatches(&c, q.batches, q.related() && q.common == common{})
	}
	all := []clause{c}
	if ids != nil {
		all = cross(all, ids.conditions(k))
	}
	if q.Address != "" {
		all = cross(all, byAddress(k, q.Address))
	}
	if q.Domain != "" {
		all = cross(all, byDomain(k, q.Domain, q.common))
	}
	return all
}

// related reports whether an event may meet the query because of others.
func (q *Query) related() bool { return q.ID != "" || q.Address != "" || q.Domain != "" }

// cross joins each condition with each of the others.
func cross(all, with []clause) []clause {
	var joined []clause
	for _, a := range all {
		for _, b := range with {
			c := clause{a.text, slices.Clone(a.args)}
			c.and(b.text, b.args...)
			joined = append(joined, c)
		}
	}
	return joined
}

// NullSender as an Address is the reverse-path of reports.
const NullSender = "<>"

// byNullSender has no condition on what belongs to no message: there no sender may mean
// that none was given.
func byNullSender(k eventlog.Kind) []clause {
	const reports = "domain = '' AND {sender} = ''"
	switch k {
	case eventlog.KindMessage:
		return []clause{{reports, nil}}
	case eventlog.KindEnvelope, eventlog.KindAttempt:
		return []clause{{"message IN (SELECT id FROM log_messages WHERE " + reports + ")", nil}}
	case eventlog.KindResult:
		return []clause{{"message <> '' AND message IN (SELECT id FROM log_messages WHERE " + reports + ")", nil}}
	}
	return nil
}

func byAddress(k eventlog.Kind, addr string) []clause {
	if addr == NullSender {
		return byNullSender(k)
	}
	_, domain := address.Split(addr)
	domain, addr = strings.ToLower(domain), strings.ToLower(addr)
	const (
		sent  = "SELECT id FROM log_messages WHERE domain = ? AND {sender} = ?"
		given = "SELECT message FROM log_envelopes WHERE recipient <> '' AND {recipient} = ?"
	)
	to := clause{"domain = ? AND {address} = ?", []any{domain, addr}}
	switch k {
	case eventlog.KindMessage:
		return []clause{
			{"domain = ? AND {sender} = ?", []any{domain, addr}},
			{"id IN (SELECT message FROM log_envelopes WHERE domain = ? AND {address} = ?)", []any{domain, addr}},
			{"id IN (" + given + ")", []any{addr}},
		}
	case eventlog.KindEnvelope:
		return []clause{to, {"recipient <> '' AND {recipient} = ?", []any{addr}}, {"message IN (" + sent + ")", []any{domain, addr}}}
	case eventlog.KindAttempt:
		return []clause{to, {"message IN (" + given + ") AND {recipient} = ?", []any{addr, addr}}, {"message IN (" + sent + ")", []any{domain, addr}}}
	case eventlog.KindResult:
		return []clause{
			to,
			{"message <> '' AND message IN (" + given + ") AND {recipient} = ?", []any{addr, addr}},
			{"message <> '' AND message IN (" + sent + ")", []any{domain, addr}},
			{"message = '' AND {sender} = ?", []any{addr}},
		}
	}
	return nil
}

// byText looks into every text of an event.
func byText(c *clause, k eventlog.Kind, text string) {
	var parts []string
	var args []any
	for _, f := range eventlog.New(k).Fields() {
		if _, ok := f.Value.(*string); ok {
			parts = append(parts, "instr(lower("+f.Name+"), ?) > 0")
			args = append(args, strings.ToLower(text))
		}
	}
	c.and(strings.Join(parts, " OR "), args...)
}

// related is what belongs to an id.
type related struct {
	sessions, messages []string
	envelope           string // of one of them, alone
}

// ours is an id of Tabard, or of an envelope of OpenSMTPD.
var ours = regexp.MustCompile(`^[0-9a-fA-F]{16}(\.[0-9]+)?$`)

// relate finds the messages and sessions that belong to an id.
func (d *DB) relate(ctx context.Context, db *sql.DB, id string) (*related, error) {
	id = strings.Trim(strings.TrimSpace(id), "<>")
	if ours.MatchString(id) {
		id = strings.ToLower(id)
	}
	r := &related{sessions: []string{id}, messages: []string{id}}
	var err error
	find := func(to *[]string, query string, args ...any) {
		if err != nil || len(*to) >= maxIDs {
			return
		}
		var list []string
		list, err = texts(ctx, db, d.d.text(query+fmt.Sprintf(" LIMIT %d", maxIDs)), args...)
		*to = append(*to, list...)
	}
	message, _, dotted := strings.Cut(id, ".")
	switch {
	case strings.Contains(id, "@"):
		r.sessions, r.messages = nil, nil
		find(&r.messages, "SELECT id FROM log_messages WHERE header_id <> '' AND header_id = ?", id)
	case dotted:
		r.sessions, r.messages, r.envelope = nil, []string{message}, id
	default:
		find(&r.messages, "SELECT id FROM log_messages WHERE session <> '' AND session = ?", id)
		find(&r.messages, "SELECT DISTINCT message FROM log_attempts WHERE session <> '' AND session = ?", id)
		if len(id) == 16 { // OpenSMTPD's envelopes begin with the id of their message
			var n []string
			find(&n, "SELECT envelope FROM log_envelopes WHERE message = ? AND envelope = ?", id[:8], id)
			if len(n) > 0 {
				r.messages, r.envelope = append(r.messages, id[:8]), id
			}
		}
	}
	if r.envelope == "" {
		for _, m := range slices.Clone(r.messages) {
			find(&r.messages, "SELECT id FROM log_messages WHERE about <> '' AND about = ?", m)
		}
	}
	for _, m := range r.messages {
		find(&r.sessions, "SELECT session FROM log_messages WHERE id = ? AND session <> ''", m)
		find(&r.sessions, "SELECT DISTINCT session FROM log_attempts WHERE message = ? AND session <> '' AND (envelope = ? OR ? = '')", m, r.envelope, r.envelope)
	}
	slices.Sort(r.sessions)
	r.sessions = slices.Compact(r.sessions)
	return r, err
}

// KnowsID reports whether an id is that of a session or of a message, or a Message-ID
// without its brackets.
func (d *DB) KnowsID(ctx context.Context, id string) (bool, error) {
	return d.knows(ctx, `SELECT EXISTS(SELECT 1 FROM log_messages WHERE id = ?) OR EXISTS(SELECT 1 FROM log_sessions WHERE id = ?)
		OR EXISTS(SELECT 1 FROM log_envelopes WHERE message = ?) OR EXISTS(SELECT 1 FROM log_attempts WHERE message = ?)
		OR EXISTS(SELECT 1 FROM log_results WHERE message <> '' AND message = ?)
		OR EXISTS(SELECT 1 FROM log_messages WHERE header_id <> '' AND header_id = ?)`, id, id, id, id, id, id)
}

// KnowsDomain reports whether there is mail from or to a domain.
func (d *DB) KnowsDomain(ctx context.Context, domain string) (bool, error) {
	domain = strings.ToLower(domain)
	return d.knows(ctx, `SELECT EXISTS(SELECT 1 FROM log_messages WHERE domain = ?) OR EXISTS(SELECT 1 FROM log_envelopes WHERE domain = ?)
		OR EXISTS(SELECT 1 FROM log_attempts WHERE domain = ?) OR EXISTS(SELECT 1 FROM log_results WHERE domain = ?)`, domain, domain, domain, domain)
}

func (d *DB) knows(ctx context.Context, query string, args ...any) (known bool, err error) {
	db, err := d.handle()
	if err != nil {
		return false, err
	}
	err = db.QueryRowContext(ctx, d.d.text(query), args...).Scan(&known)
	return known, err
}

func texts(ctx context.Context, db *sql.DB, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells what Close would
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}

// conditions returns those on the events of a kind.
func (r *related) conditions(k eventlog.Kind) []clause {
	switch k {
	case eventlog.KindSession:
		return in("", "id", r.sessions)
	case eventlog.KindMessage:
		return in("", "id", r.messages)
	case eventlog.KindLoss:
		return nil
	case eventlog.KindResult:
		if r.envelope == "" { // the refused commands of its sessions, too
			return append(in("message <> '' AND ", "message", r.messages), in("message = '' AND ", "session", r.sessions)...)
		}
	}
	all := in("", "message", r.messages)
	if r.envelope != "" {
		all = cross(all, []clause{{"envelope = ? OR envelope = ''", []any{r.envelope}}})
	}
	return all
}

// in is the condition that a column has one of some values; none if there are none.
func in(before, column string, values []string) []clause {
	if len(values) == 0 {
		return nil
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return []clause{{before + column + " IN (?" + strings.Repeat(", ?", len(values)-1) + ")", args}}
}

// errEmpty says that there is no event.
var errEmpty = errors.New("no event")
