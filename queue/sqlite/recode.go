package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"tabard/internal/bodycode"
	"tabard/internal/rpc"
	"tabard/queue"
)

// What is encoded is found by the index alone. What is not has none, which would
// cost every message of a queue without any of this.
const (
	encodingsQuery = "SELECT encoding, count(*) FROM messages INDEXED BY messages_encoding WHERE encoding <> '' GROUP BY encoding"
	encodedQuery   = "SELECT id FROM messages INDEXED BY messages_encoding WHERE encoding <> '' AND encoding = ? AND id > ? ORDER BY id LIMIT ?"
	plainQuery     = "SELECT id FROM messages WHERE encoding = '' AND id > ? ORDER BY id LIMIT ?"
)

// recodeBytes is about how much is stored anew in one step.
const recodeBytes = 16 << 20

// SetCoder implements queue.CodedStore.
func (s *Store) SetCoder(c *bodycode.Coder) { s.coder.Store(c) }

// Encode implements queue.CodedStore.
func (s *Store) Encode(m *queue.NewMessage) error {
	if m.Staged {
		return nil
	}
	var err error
	m.Body, m.Encoding, err = s.coder.Load().Encode(int64(m.Message.ID), m.Body)
	return err
}

// Encodings implements queue.CodedStore.
func (s *Store) Encodings(ctx context.Context) ([]queue.EncodingCount, error) {
	rows, err := s.reads.encodings.QueryContext(ctx)
	counts, err := collect(rows, err, func(rows *sql.Rows) (n queue.EncodingCount, err error) {
		err = rows.Scan(&n.Encoding, &n.Messages)
		return n, err
	})
	return counts, wrap(err)
}

// Recode implements queue.CodedStore.
func (s *Store) Recode(ctx context.Context, from bodycode.Encoding, after queue.MessageID, limit int) ([]queue.Recoded, error) {
	ids, err := s.stored(ctx, from, after, limit)
	if err != nil {
		return nil, err
	}
	all := make([]queue.Recoded, 0, len(ids))
	size := int64(0)
	for _, id := range ids {
		r, n, err := s.recode(ctx, id, from)
		if errors.Is(err, rpc.ErrNoSpace) || ctx.Err() != nil {
			return all, err
		}
		r.Err = err
		all = append(all, r)
		if size += n; size > recodeBytes {
			break
		}
	}
	return all, nil
}

// stored returns the ids of messages whose bodies are stored in one way.
func (s *Store) stored(ctx context.Context, e bodycode.Encoding, after queue.MessageID, limit int) ([]queue.MessageID, error) {
	stmt, args := s.reads.plain, []any{int64(after), limit}
	if e != "" {
		stmt, args = s.reads.encoded, append([]any{string(e)}, args...)
	}
	rows, err := stmt.QueryContext(ctx, args...)
	ids, err := collect(rows, err, func(rows *sql.Rows) (id queue.MessageID, err error) {
		err = rows.Scan(&id)
		return id, err
	})
	return ids, wrap(err)
}

// recode makes the present form of one body, which has size bytes.
func (s *Store) recode(ctx context.Context, id queue.MessageID, from bodycode.Encoding) (r queue.Recoded, size int64, err error) {
	r = queue.Recoded{ID: id, From: from}
	name, err := s.reads.file(ctx, id)
	if err != nil {
		return r, 0, err
	}
	body, err := s.Body(ctx, id)
	if err != nil {
		return r, 0, err
	}
	defer body.Close()
	clear := io.NewSectionReader(body, 0, body.Size())
	if name != "" {
		r.Old = name
		r.File, r.To, err = s.restage(id, name, clear)
		return r, body.Size(), err
	}
	text := make([]byte, body.Size())
	if _, err := io.ReadFull(clear, text); err != nil {
		return r, 0, err
	}
	r.Body, r.To, err = s.coder.Load().Encode(int64(id), text)
	return r, body.Size(), err
}

// restage writes a body to a file of another name than that which its row has.
func (s *Store) restage(id queue.MessageID, old string, clear io.Reader) (name string, e bodycode.Encoding, err error) {
	_, n, err := queue.ParseID(old)
	if err != nil {
		return "", "", err
	}
	made, err := s.Stage()
	if err != nil {
		return "", "", err
	}
	st := made.(*stage) // ours
	_, err = io.Copy(st, clear)
	if err == nil {
		err = st.finish(id)
	}
	name = fmt.Sprintf("%s.%d", id, n+2) // n is -1 for a first file
	if err == nil {
		// One that is there is left from a change that failed: no row has it.
		err = wrap(s.files.disk.Rename(s.files.path(st.name), s.files.path(name)))
	}
	if err != nil {
		st.Discard()
		return "", "", err
	}
	return name, st.Encoding(), s.health.judge(synced(s.files.disk.SyncDir(s.files.dir)))
}

// recoded puts bodies in the places of those that they were made from, unless these
// are gone. It returns the files that nobody needs then.
func (w *writer) recoded(ctx context.Context, c *queue.Change) (gone []string, err error) {
	for i := range c.Recode {
		r := &c.Recode[i]
		var body, file, old any
		switch {
		case r.File != "":
			file, old = r.File, r.Old
		case r.Body == nil:
			body = []byte{}
		default:
			body = r.Body
		}
		done, err := w.recode.ExecContext(ctx, body, file, string(r.To), int64(r.ID), string(r.From), old)
		if err != nil {
			return nil, err
		}
		n, err := done.RowsAffected()
		if err != nil {
			return nil, err
		}
		c.Affected += int(n)
		if left := r.Old; r.File != "" {
			if n == 0 {
				left = r.File
			}
			gone = append(gone, left)
		}
	}
	return gone, nil
}
