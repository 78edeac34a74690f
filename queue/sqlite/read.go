package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"tabard/internal/bodycode"
	"tabard/internal/rpc"
	"tabard/queue"
)

const (
	columns = `e.message, e.n, e.address, e.recipient, e.orcpt, e.notify, e.action, e.relay, e.user, e.destination,
		e.created, e.expires, e.next, e.attempts, e.warned, e.held, e.last_error, e.notice, e.tls, e.priority, e.lane, e.deadline, e.deadline_mode,
		m.sender, m.size, m.eightbit, m.utf8, m.ret, m.envid, m.session, m.login, m.helo, m.remote, m.created`
	from = " FROM envelopes e CROSS JOIN messages m ON m.id = e.message "
	// waiting must stand in a query word for word, or the indices do not serve it.
	waiting = "lease IS NULL AND held = 0"

	dueQuery = "SELECT " + columns + from + "WHERE " + waiting + ` AND lane = ? AND next <= ? AND (next, destination, message, n) > (?, ?, ?, ?)
		AND destination NOT IN (SELECT value FROM json_each(?)) ORDER BY next, destination, message, n LIMIT ?`
	dueAtQuery = "SELECT " + columns + from + "WHERE " + waiting + ` AND destination = ? AND lane = ? AND next <= ? AND (next, message, n) > (?, ?, ?)
		ORDER BY next, message, n LIMIT ?`
	nextQuery = "SELECT min(next) FROM envelopes WHERE " + waiting + " AND lane = ? AND next > ?"
)

// reader is the statements that read.
type reader struct {
	health *health

	due, dueAt, next, of, count, bodyOf, fileOf *sql.Stmt
	holds, held, backlog                        *sql.Stmt
	encodings, encoded, plain                   *sql.Stmt
}

func newReader(ctx context.Context, db *sql.DB, h *health) (*reader, error) {
	r := &reader{health: h}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&r.due, dueQuery},
		{&r.dueAt, dueAtQuery},
		{&r.next, nextQuery},
		{&r.of, "SELECT " + columns + from + "WHERE e.message = ? ORDER BY e.n"},
		{&r.count, "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM envelopes)"},
		{&r.bodyOf, "SELECT size, checksum, file, body, encoding FROM messages WHERE id = ?"},
		{&r.holds, "SELECT id, kind, value, reason, created FROM holds ORDER BY id"},
		{&r.held, "SELECT held, count(*) FROM envelopes WHERE held > 0 GROUP BY held"},
		// last_error is that of the row with the least next.
		{&r.backlog, `SELECT destination, action, count(*), sum(held > 0), min(next), last_error FROM envelopes
			WHERE relay = 1 GROUP BY destination, action ORDER BY count(*) DESC LIMIT ?`},
		{&r.encodings, encodingsQuery},
		{&r.encoded, encodedQuery},
		{&r.plain, plainQuery},
		{&r.fileOf, "SELECT file FROM messages WHERE id = ? AND file IS NOT NULL"},
	} {
		var err error
		if *p.stmt, err = db.PrepareContext(ctx, p.text); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *reader) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{r.due, r.dueAt, r.next, r.of, r.count, r.bodyOf, r.fileOf, r.holds, r.held, r.backlog, r.encodings, r.encoded, r.plain} {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Due implements queue.Store.
func (s *Store) Due(ctx context.Context, q queue.DueQuery) ([]queue.Stored, error) {
	after := q.After
	if q.Destination != "" {
		return s.reads.stored(ctx, s.reads.dueAt, q.Destination, int(q.Lane), q.Now.UnixMilli(), millis(after.Next), int64(after.ID.Message), after.ID.N, q.Limit)
	}
	except, err := json.Marshal(append([]string{}, q.Except...))
	if err != nil {
		return nil, err
	}
	return s.reads.stored(ctx, s.reads.due, int(q.Lane), q.Now.UnixMilli(), millis(after.Next), after.Destination, int64(after.ID.Message), after.ID.N, string(except), q.Limit)
}

// Next implements queue.Store.
func (s *Store) Next(ctx context.Context, l queue.Lane, t time.Time) (time.Time, error) {
	var next sql.NullInt64
	if err := s.reads.next.QueryRowContext(ctx, int(l), millis(t)).Scan(&next); err != nil || !next.Valid {
		return time.Time{}, wrap(err)
	}
	return time.UnixMilli(next.Int64), nil
}

// Envelopes implements queue.Store.
func (s *Store) Envelopes(ctx context.Context, id queue.MessageID) ([]queue.Stored, error) {
	return s.reads.stored(ctx, s.reads.of, int64(id))
}

// Count implements queue.Store.
func (s *Store) Count(ctx context.Context) (func() (messages, envelopes int64, err error), error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, s.health.judge(err)
	}
	// What it reads is fixed by the first thing that it reads.
	if _, err := tx.ExecContext(ctx, "SELECT 1 FROM messages LIMIT 1"); err != nil {
		return nil, errors.Join(s.health.judge(err), tx.Rollback())
	}
	return func() (messages, envelopes int64, err error) {
		defer func() { _ = tx.Rollback() }() // nothing was written
		err = tx.StmtContext(ctx, s.reads.count).QueryRowContext(ctx).Scan(&messages, &envelopes)
		return messages, envelopes, s.health.judge(err)
	}, nil
}

// millis is the stored form of t; the zero time comes before all.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return t.UnixMilli()
}

func (r *reader) stored(ctx context.Context, stmt *sql.Stmt, args ...any) ([]queue.Stored, error) {
	if err := r.health.check(); err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(ctx, args...)
	messages := make(map[queue.MessageID]*queue.Message)
	all, err := collect(rows, err, func(rows *sql.Rows) (queue.Stored, error) { return scan(rows, messages) })
	return all, r.health.judge(err)
}

// scan reads one row, with more columns at its end; envelopes of one message share
// what is known of it.
func scan(rows *sql.Rows, messages map[queue.MessageID]*queue.Message, more ...any) (queue.Stored, error) {
	var s queue.Stored
	var m queue.Message
	var created, expires, next, born int64
	var tls int
	var by int64
	var mode string
	err := rows.Scan(append([]any{&s.ID.Message, &s.ID.N, &s.Address, &s.Recipient, &s.ORCPT, &s.Notify, &s.Action, &s.Relay, &s.User, &s.Destination,
		&created, &expires, &next, &s.Attempts, &s.Warned, &s.Hold, &s.LastError, &s.Notice, &tls, &m.Priority, &s.Lane, &by, &mode,
		&m.Sender, &m.Size, &m.EightBit, &m.UTF8, &m.Ret, &m.EnvID, &m.Session, &m.User, &m.Helo, &m.Remote, &born}, more...)...)
	if err != nil {
		return s, err
	}
	s.Created, s.Expires, s.Next = time.UnixMilli(created), time.UnixMilli(expires), time.UnixMilli(next)
	if known := messages[s.ID.Message]; known != nil {
		s.Message = known
		return s, nil
	}
	m.ID, m.Created = s.ID.Message, time.UnixMilli(born)
	m.RequireTLS, m.TLSOptional = tls == tlsRequired, tls == tlsOptional
	m.DeliverBy = deliverBy(by, mode)
	if s.Created.After(m.Created) {
		m.Release = s.Created
	}
	s.Message = &m
	messages[m.ID] = &m
	return s, nil
}

// bodyRow is where a body is, and what it must be.
type bodyRow struct {
	size     int64
	checksum uint32
	file     sql.NullString
	body     []byte
	encoding bodycode.Encoding
}

func (r *reader) body(ctx context.Context, id queue.MessageID) (bodyRow, error) {
	var b bodyRow
	if err := r.health.check(); err != nil {
		return b, err
	}
	err := r.bodyOf.QueryRowContext(ctx, int64(id)).Scan(&b.size, &b.checksum, &b.file, &b.body, &b.encoding)
	if errors.Is(err, sql.ErrNoRows) {
		return b, rpc.ErrNotFound
	}
	return b, r.health.judge(err)
}

// file names the file of a message's body; it is empty when there is none.
func (r *reader) file(ctx context.Context, id queue.MessageID) (name string, err error) {
	err = r.fileOf.QueryRowContext(ctx, int64(id)).Scan(&name)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return name, wrap(err)
}
