package eventdb

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"tabard/internal/eventlog"
	"tabard/migrations"
)

// Mark is a place in the order in which events come into the database, which is not that
// of their times: a process may have kept them while the database was away.
//
// SQLite has one writer at a time, so its batches have numbers in the order of their
// commits. In PostgreSQL a number is taken before the commit, and a later one may be seen
// earlier. There the mark is the oldest transaction that had not ended when it was made,
// and the batches of later ones that were there all the same: what is neither, is new.
type Mark struct {
	last  int64           // SQLite: the newest batch
	xact  int64           // PostgreSQL: all transactions before have ended
	asked time.Time       // PostgreSQL: that was then, by its clock; zero: never
	seen  map[int64]batch // PostgreSQL: of others, by id

	// Which events are meant may depend on others that come after them: the recipient of
	// a message is told by another process than its sender. For such a query what came a
	// short time ago is looked at again.
	recent []recent
	shown  map[name]time.Time
	now    func() time.Time
}

// batch is a transaction that brought events.
type batch struct {
	id, xact     int64
	since, until time.Time // of its events
	written      time.Time
}

type recent struct {
	batch
	found time.Time
}

// name is what an event is known by.
type name struct {
	kind eventlog.Kind
	at   int64
	key  int64
}

func nameOf(e eventlog.Event) name {
	h := e.Common()
	return name{e.Kind(), h.At.UnixMilli(), h.Key}
}

const (
	// maxCommit is how long a transaction of ours may take to be followed: those begun so
	// long before the last look are not asked for, however long another one of that server
	// goes on.
	maxCommit = time.Hour
	// maxRelated is how much later an event may come that makes another one be meant.
	maxRelated = 2 * time.Minute
	// maxGroup bounds how many batches are read at once.
	maxGroup = 20
)

// Mark returns the place after all that is in the database now.
func (d *DB) Mark(ctx context.Context) (*Mark, error) {
	db, err := d.handle()
	if err != nil {
		return nil, err
	}
	m := &Mark{seen: map[int64]batch{}, shown: map[name]time.Time{}, now: time.Now}
	if d.d == migrations.SQLite {
		m.last, err = newestBatch(ctx, db)
		return m, err
	}
	// Without a mark everything of the last hour is new: that is what may be seen at once.
	fresh, now, err := m.ask(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, b := range fresh {
		m.seen[b.id] = b
	}
	m.settle(now)
	return m, nil
}

// After gives the events of a query that came after a mark to f, and moves the mark behind
// them. They are in order of time as far as they are read together. After an error of the
// database nothing is given that was given before, and nothing is left out. Query.Newest
// and Query.Upto do not count.
func (d *DB) After(ctx context.Context, q Query, m *Mark, f func(eventlog.Event) error) error {
	db, err := d.handle()
	if err != nil {
		return err
	}
	q.Newest, q.Upto = 0, nil
	var fresh []batch
	var now instant
	if d.d == migrations.SQLite {
		fresh, err = m.askSQLite(ctx, db)
	} else {
		fresh, now, err = m.ask(ctx, db)
	}
	if err != nil {
		return err
	}
	if q.related() {
		err = d.afterRelated(ctx, q, m, fresh, f)
	} else {
		err = d.afterPlain(ctx, q, m, fresh, f)
	}
	if err == nil && now.xact > 0 {
		m.settle(now)
	}
	return err
}

// afterPlain is for queries on which events meet them alone.
func (d *DB) afterPlain(ctx context.Context, q Query, m *Mark, fresh []batch, f func(eventlog.Event) error) error {
	for _, group := range groups(fresh, d.d == migrations.SQLite) {
		q.batches = group
		events, err := d.collect(ctx, q)
		if err != nil {
			return err
		}
		m.pass(group)
		for _, e := range events {
			if err := f(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// afterRelated looks at what came of late, too.
func (d *DB) afterRelated(ctx context.Context, q Query, m *Mark, fresh []batch, f func(eventlog.Event) error) error {
	now := m.now()
	m.recent = slices.DeleteFunc(m.recent, func(r recent) bool { return now.Sub(r.found) > maxRelated })
	maps.DeleteFunc(m.shown, func(_ name, at time.Time) bool { return now.Sub(at) > 2*maxRelated })
	if len(fresh) == 0 {
		return nil // nothing new can make another event be meant
	}
	q.batches = slices.Clone(fresh)
	for _, r := range m.recent {
		q.batches = append(q.batches, r.batch)
	}
	events, err := d.collect(ctx, q)
	if err != nil {
		return err
	}
	m.pass(fresh)
	for _, b := range fresh {
		m.recent = append(m.recent, recent{b, now})
	}
	for _, e := range events {
		n := nameOf(e)
		if _, ok := m.shown[n]; ok {
			continue
		}
		m.shown[n] = now
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (d *DB) collect(ctx context.Context, q Query) (events []eventlog.Event, err error) {
	err = d.Select(ctx, q, func(e eventlog.Event) error {
		events = append(events, e)
		return nil
	})
	return events, err
}

// pass moves the mark behind batches.
func (m *Mark) pass(list []batch) {
	for _, b := range list {
		if m.last = max(m.last, b.id); b.xact > 0 {
			m.seen[b.id] = b
		}
	}
}

// instant is when PostgreSQL was asked: its oldest transaction that goes on, and the time.
type instant struct {
	xact int64
	at   time.Time
}

// settle moves the mark to an instant of which all batches are given, and forgets those
// that will not be asked for again.
func (m *Mark) settle(now instant) {
	m.xact, m.asked = now.xact, now.at
	maps.DeleteFunc(m.seen, func(_ int64, b batch) bool {
		return b.xact < now.xact || now.at.Sub(b.written) > 2*maxCommit
	})
}

// ask returns the batches that PostgreSQL has beside those of the mark, as of an instant.
// However long ago the mark was made, what came since is among them.
func (m *Mark) ask(ctx context.Context, db *sql.DB) (fresh []batch, now instant, err error) {
	rows, err := db.QueryContext(ctx, `SELECT txid_snapshot_xmin(txid_current_snapshot()), now(), b.id, b.xact, b.since, b.until, b.written
		FROM (SELECT 1) AS one LEFT JOIN log_batches b ON b.xact >= $1 AND b.written >= coalesce($2, now()) - $3 * interval '1 second'`,
		m.xact, sql.NullTime{Time: m.asked, Valid: !m.asked.IsZero()}, maxCommit.Seconds())
	if err != nil {
		return nil, now, err
	}
	defer func() { _ = rows.Close() }() // Err tells what Close would
	for rows.Next() {
		var id, of sql.NullInt64
		var since, until, written sql.NullTime
		if err := rows.Scan(&now.xact, &now.at, &id, &of, &since, &until, &written); err != nil {
			return nil, now, err
		}
		if _, ok := m.seen[id.Int64]; id.Valid && !ok {
			fresh = append(fresh, batch{id.Int64, of.Int64, since.Time, until.Time, written.Time})
		}
	}
	return fresh, now, rows.Err()
}

// newestBatch is the number of the last batch that SQLite was given; it may be forgotten.
func newestBatch(ctx context.Context, db *sql.DB) (id int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'log_batches'").Scan(&id)
	return id, err
}

// askSQLite returns the batches after the mark. In a database that was made anew their
// numbers begin anew.
func (m *Mark) askSQLite(ctx context.Context, db *sql.DB) (fresh []batch, err error) {
	newest, err := newestBatch(ctx, db)
	if err != nil {
		return nil, err
	}
	if newest < m.last {
		m.last = 0
	}
	rows, err := db.QueryContext(ctx, "SELECT id, since, until FROM log_batches WHERE id > ? ORDER BY id", m.last)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells what Close would
	for rows.Next() {
		var b batch
		var since, until int64
		if err := rows.Scan(&b.id, &since, &until); err != nil {
			return nil, err
		}
		b.since, b.until = time.UnixMilli(since), time.UnixMilli(until)
		fresh = append(fresh, b)
	}
	return fresh, rows.Err()
}

// groups puts together batches of which the times of events lie close. Those in the order
// of their numbers have to stay in it.
func groups(list []batch, ordered bool) (all [][]batch) {
	const near = time.Minute
	list = slices.Clone(list)
	if !ordered {
		slices.SortFunc(list, func(a, b batch) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.id, b.id)) })
	}
	var from, to time.Time
	for _, b := range list {
		n := len(all) - 1
		if n < 0 || len(all[n]) >= maxGroup || b.since.After(to.Add(near)) || b.until.Before(from.Add(-near)) {
			all = append(all, []batch{b})
			from, to = b.since, b.until
			continue
		}
		all[n] = append(all[n], b)
		if b.since.Before(from) {
			from = b.since
		}
		if b.until.After(to) {
			to = b.until
		}
	}
	return all
}

// times is when the first and the last event of batches happened.
func times(list []batch) (from, to time.Time) {
	from, to = list[0].since, list[0].until
	for _, b := range list {
		if b.since.Before(from) {
			from = b.since
		}
		if b.until.After(to) {
			to = b.until
		}
	}
	return from, to
}

// inBatches is the condition that an event came with one of the batches. Their times are
// told for the primary key, unless other indices lead to it.
func (d dialect) inBatches(c *clause, list []batch, related bool) {
	ids := make([]int64, len(list))
	for i, b := range list {
		ids[i] = b.id
	}
	if !related {
		from, to := times(list)
		c.and("at >= ? AND at <= ?", d.time(from), d.time(to))
	}
	if d == migrations.Postgres {
		c.and("batch = ANY(?)", ids)
		return
	}
	text, _ := json.Marshal(ids) // of numbers
	c.and("batch IN (SELECT value FROM json_each(?))", string(text))
}

// upto is the condition that an event was there when a mark was made.
func (d dialect) upto(c *clause, m *Mark) {
	if d == migrations.SQLite {
		c.and("batch <= ?", m.last)
		return
	}
	seen := make([]int64, 0, len(m.seen)) // nil would be NULL
	for id := range m.seen {
		seen = append(seen, id)
	}
	c.and("batch NOT IN (SELECT id FROM log_batches WHERE xact >= ? AND written >= now() - ? * interval '1 second' AND NOT id = ANY(?))",
		m.xact, maxCommit.Seconds(), seen)
}
