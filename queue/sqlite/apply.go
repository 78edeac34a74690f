package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tabard/queue"
)

// writer is the one connection that writes, with its statements.
type writer struct {
	conn *sql.Conn
	run  int64 // see Store
	all  []*sql.Stmt

	unfolded int // pages in the log

	begin, commit, rollback       *sql.Stmt
	message, envelope             *sql.Stmt
	removeEnvelope, removeMessage *sql.Stmt
	removeFiled, update, due      *sql.Stmt
	unclaim                       *sql.Stmt
	hold, free, endHold           *sql.Stmt
	attempt, dropAttempts         *sql.Stmt
	recode                        *sql.Stmt
	importMark, forgetImports     *sql.Stmt
	there                         *sql.Stmt
}

func newWriter(ctx context.Context, db *sql.DB, run int64) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, run: run}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		{&w.begin, "BEGIN IMMEDIATE"},
		{&w.commit, "COMMIT"},
		{&w.rollback, "ROLLBACK"},
		{&w.message, `INSERT INTO messages (id, sender, size, eightbit, utf8, ret, envid, session, login, helo, remote, created, checksum, file, body, encoding)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.envelope, `INSERT INTO envelopes (message, n, address, recipient, orcpt, notify, action, relay, user, destination, created, expires, next, attempts, warned, held, last_error, notice, lease, tls, priority, lane, deadline, deadline_mode)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.removeEnvelope, "DELETE FROM envelopes WHERE message = ? AND n = ?"},
		{&w.removeMessage, "DELETE FROM messages WHERE id = ? AND file IS NULL AND NOT EXISTS (SELECT 1 FROM envelopes WHERE message = id)"},
		{&w.removeFiled, "DELETE FROM messages WHERE id = ? AND file IS NOT NULL AND NOT EXISTS (SELECT 1 FROM envelopes WHERE message = id) RETURNING file"},
		{&w.update, "UPDATE envelopes SET attempts = ?1, next = ?2, last_error = ?3, warned = ?4, held = CASE WHEN ?5 < 2 OR EXISTS (SELECT 1 FROM holds WHERE id = ?5) THEN ?5 ELSE 0 END, notice = ?6, lease = NULL WHERE message = ?7 AND n = ?8"},
		{&w.hold, `INSERT INTO holds (id, kind, value, reason, created) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, value) DO UPDATE SET id = excluded.id, reason = excluded.reason, created = excluded.created`},
		{&w.free, freeText},
		{&w.attempt, attemptText},
		{&w.dropAttempts, dropAttemptsText},
		{&w.endHold, "DELETE FROM holds WHERE id = ?"},
		{&w.importMark, importText},
		{&w.forgetImports, forgetImportsText},
		{&w.there, "SELECT id FROM messages WHERE id = ?"},
		{&w.recode, "UPDATE messages SET body = ?1, file = ?2, encoding = ?3 WHERE id = ?4 AND encoding = ?5 AND file IS ?6"},
		{&w.due, dueText},
		{&w.unclaim, unclaimText},
	} {
		if *p.stmt, err = conn.PrepareContext(ctx, p.text); err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.all = append(w.all, *p.stmt)
	}
	return w, nil
}

const (
	// dueNext is ?1, but for what was held not before the time until which its sender
	// wants it to be (RFC 4865).
	dueNext = "next = iif(held = 0 OR attempts > 0, ?1, max(?1, created))"
	// freeText says held > 0 because the index of what is held does.
	freeText = "UPDATE envelopes SET held = 0, expires = max(expires + max(0, ?1 - next), ?2), " + dueNext + " WHERE held > 0 AND held = ?3"
	dueText  = "UPDATE envelopes SET expires = iif(held = 0, expires, max(expires + max(0, ?1 - next), ?2)), " + dueNext + ", held = 0 WHERE message = ?3 AND n = ?4"
)

// close ends the statements first: with one open, SQLite would leave its log
// behind instead of folding it into the database.
func (w *writer) close() error {
	var errs []error
	for _, s := range w.all {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// Apply implements queue.Store.
func (s *Store) Apply(ctx context.Context, changes []*queue.Change) error {
	if err := s.Writable(); err != nil {
		return err
	}
	if err := s.fits(changes); err != nil {
		return fmt.Errorf("queue database %s: %w", s.path, err)
	}
	ctx = context.WithoutCancel(ctx)
	gone, err := s.stmts.apply(ctx, changes)
	if err != nil {
		return fmt.Errorf("queue database %s: %w", s.path, s.health.judge(err))
	}
	s.files.remove(gone)
	// The changes are durable, whatever becomes of this.
	s.fold(ctx)
	return nil
}

// apply returns the files of messages that are gone.
func (w *writer) apply(ctx context.Context, changes []*queue.Change) (gone []string, err error) {
	if _, err := w.begin.ExecContext(ctx); err != nil {
		w.abandon(ctx)
		return nil, err
	}
	for _, c := range changes {
		files, err := w.change(ctx, c)
		if err != nil {
			w.abandon(ctx)
			return nil, err
		}
		gone = append(gone, files...)
	}
	if _, err := w.commit.ExecContext(ctx); err != nil {
		w.abandon(ctx)
		return nil, err
	}
	return gone, nil
}

// abandon ends a transaction that failed. SQLite has ended it already after
// some errors, and says so with another one.
func (w *writer) abandon(ctx context.Context) { _, _ = w.rollback.ExecContext(ctx) }

func (w *writer) change(ctx context.Context, c *queue.Change) (gone []string, err error) {
	c.Affected, c.Messages = 0, 0
	for _, h := range c.Hold { // before what it holds
		if _, err := w.hold.ExecContext(ctx, h.ID, string(h.Kind), h.Value, h.Reason, h.Created.UnixMilli()); err != nil {
			return nil, err
		}
	}
	for i := range c.Insert {
		if err := w.insert(ctx, &c.Insert[i]); err != nil {
			return nil, err
		}
	}
	if c.Import != nil {
		if err := w.imported(ctx, c.Import); err != nil {
			return nil, err
		}
	}
	for _, u := range c.Update {
		if _, err := w.update.ExecContext(ctx, u.Attempts, u.Next.UnixMilli(), u.LastError, u.Warned, u.Hold, u.Notice, int64(u.ID.Message), u.ID.N); err != nil {
			return nil, err
		}
		if u.Attempt == nil {
			continue
		}
		if err := w.attempted(ctx, u.Attempt); err != nil {
			return nil, err
		}
	}
	for _, id := range c.Due {
		if err := affected(c)(w.due.ExecContext(ctx, c.DueAt.UnixMilli(), c.DueAt.Add(queue.ReleaseGrace).UnixMilli(), int64(id.Message), id.N)); err != nil {
			return nil, err
		}
	}
	if err := w.unclaimed(ctx, c); err != nil {
		return nil, err
	}
	for i := range c.Attach {
		if err := w.attached(ctx, &c.Attach[i]); err != nil {
			return nil, err
		}
	}
	if err := w.endHolds(ctx, c); err != nil {
		return nil, err
	}
	recoded, err := w.recoded(ctx, c)
	if err != nil {
		return nil, err
	}
	before := c.Affected
	if gone, err = w.remove(ctx, c); err == nil && len(c.Attach) > 0 && c.Affected-before < len(c.Remove) {
		err = fmt.Errorf("%w: an envelope that others take the place of is gone", queue.ErrConflict)
	}
	return append(gone, recoded...), err
}

// endHolds ends holds.
func (w *writer) endHolds(ctx context.Context, c *queue.Change) error {
	for _, id := range c.Release {
		if err := affected(c)(w.free.ExecContext(ctx, c.DueAt.UnixMilli(), c.DueAt.Add(queue.ReleaseGrace).UnixMilli(), id)); err != nil {
			return err
		}
		if _, err := w.endHold.ExecContext(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// affected counts the rows of a statement for a change.
func affected(c *queue.Change) func(sql.Result, error) error {
	return func(r sql.Result, err error) error {
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		c.Affected += int(n)
		return err
	}
}

func (w *writer) insert(ctx context.Context, m *queue.NewMessage) error {
	h := &m.Message
	var name, body any
	if m.Staged {
		name = h.ID.String()
	} else {
		body = m.Body
		if m.Body == nil {
			body = []byte{}
		}
	}
	if _, err := w.message.ExecContext(ctx, int64(h.ID), h.Sender, h.Size, h.EightBit, h.UTF8, h.Ret, h.EnvID, h.Session,
		h.User, h.Helo, h.Remote, h.Created.UnixMilli(), int64(m.Checksum), name, body, string(m.Encoding)); err != nil {
		return err
	}
	for i := range m.Envelopes {
		if err := w.attach(ctx, h, &m.Envelopes[i]); err != nil {
			return err
		}
	}
	return nil
}

// attach adds an envelope to a message.
func (w *writer) attach(ctx context.Context, m *queue.Message, e *queue.NewEnvelope) error {
	var lease any
	if e.Claimed {
		lease = w.run
	}
	by, mode := deadline(&m.DeliverBy)
	_, err := w.envelope.ExecContext(ctx, int64(m.ID), e.ID.N, e.Address, e.Recipient, e.ORCPT, e.Notify, e.Action, e.Relay, e.User,
		e.Destination, e.Created.UnixMilli(), e.Expires.UnixMilli(), e.Next.UnixMilli(),
		e.Attempts, e.Warned, e.Hold, e.LastError, e.Notice, lease, tlsWord(m),
		m.Priority, int(e.Lane), by, mode)
	return err
}

// The values of column tls.
const (
	tlsRequired = 1
	tlsOptional = 2
)

func tlsWord(m *queue.Message) int {
	switch {
	case m.RequireTLS:
		return tlsRequired
	case m.TLSOptional:
		return tlsOptional
	}
	return 0
}

// remove deletes envelopes, and each message after the last of its own.
func (w *writer) remove(ctx context.Context, c *queue.Change) (gone []string, err error) {
	for i, id := range c.Remove {
		if err := affected(c)(w.removeEnvelope.ExecContext(ctx, int64(id.Message), id.N)); err != nil {
			return nil, err
		}
		if i+1 < len(c.Remove) && c.Remove[i+1].Message == id.Message {
			continue
		}
		file, err := w.removeLast(ctx, c, id.Message)
		if err != nil {
			return nil, err
		}
		if file != "" {
			gone = append(gone, file)
		}
	}
	return gone, nil
}

// removeLast removes a message that has no envelopes any more, and returns the
// file of its body. The statement with RETURNING costs an ephemeral table, which
// the common message need not pay.
func (w *writer) removeLast(ctx context.Context, c *queue.Change, id queue.MessageID) (file string, err error) {
	r, err := w.removeMessage.ExecContext(ctx, int64(id))
	if err != nil {
		return "", err
	}
	if n, err := r.RowsAffected(); n > 0 || err != nil {
		c.Messages += int(n)
		return "", err
	}
	err = w.removeFiled.QueryRowContext(ctx, int64(id)).Scan(&file)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err == nil {
		c.Messages++
	}
	return file, err
}
