package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"tabard/internal/address"
	"tabard/queue"
)

// copied is a table to be saved, and the whole number that its rows are found by.
type copied struct{ table, key string }

// copy saves the rows of a table that can be read: from the front as far as that goes,
// then from the back, then between the two by the ids that other tables and the
// bodies' files tell of. What it reads twice is saved once.
func (r *repair) copy(ctx context.Context, t copied) error {
	columns, err := columnsOf(ctx, t.table, r.old, r.new)
	if err != nil || len(columns) == 0 {
		// The schema itself cannot be read: nothing can.
		r.Unread = append(r.Unread, fmt.Sprintf("%s: nothing of it could be read: %v", t.table, err))
		return ctx.Err()
	}
	c := &copier{copied: t, report: &r.Report, columns: columns, old: r.old, new: r.new}
	c.read = "SELECT " + list(columns) + ", " + t.key + " FROM " + t.table + " WHERE " + t.key + " BETWEEN ? AND ? ORDER BY " + t.key
	c.write = "INSERT INTO " + t.table + " (" + list(columns) + ") VALUES (" + strings.TrimSuffix(strings.Repeat("?, ", len(columns)), ", ") + ") ON CONFLICT DO NOTHING"
	c.same = "SELECT EXISTS (SELECT 1 FROM " + t.table + " WHERE " + strings.Join(columns, " IS ? AND ") + " IS ?)"
	front, err := c.rows(ctx, math.MinInt64, math.MaxInt64, "")
	if err != nil || front == math.MaxInt64 {
		return err
	}
	back, err := c.rows(ctx, front, math.MaxInt64, " DESC")
	if err != nil {
		return err
	}
	found, err := r.between(ctx, c, front, back)
	if err != nil {
		return err
	}
	r.Unread = append(r.Unread, fmt.Sprintf("%s: rows between %s and %s could not be read in order; %d were found among them", t.table, idText(front), idText(back), found))
	return nil
}

// idText prints a bound.
func idText(id int64) string {
	switch id {
	case math.MinInt64:
		return "the first"
	case math.MaxInt64:
		return "the last"
	}
	return queue.MessageID(id).String()
}

// between looks for rows one by one, by the ids that are known from elsewhere.
func (r *repair) between(ctx context.Context, c *copier, front, back int64) (found int, err error) {
	known := make(map[int64]bool)
	for _, query := range []string{"SELECT DISTINCT message FROM envelopes", "SELECT id FROM messages"} {
		for _, db := range []*sql.DB{r.old, r.new} {
			for _, order := range []string{" ORDER BY 1", " ORDER BY 1 DESC"} {
				if err := ids(ctx, db, query+order, known); err != nil {
					return 0, err
				}
			}
		}
	}
	if err := r.files.each(func(name string) error {
		if id, _, err := queue.ParseID(name); err == nil {
			known[int64(id)] = true
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for id := range known {
		if id < front || id > back {
			continue
		}
		before := c.saved
		if _, err := c.rows(ctx, id, id, ""); err != nil {
			return found, err
		}
		if c.saved > before {
			found++
		}
	}
	return found, nil
}

// ids adds what a query gives before it fails.
func ids(ctx context.Context, db *sql.DB, query string, known map[int64]bool) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return ctx.Err()
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if rows.Scan(&id) == nil {
			known[id] = true
		}
	}
	return ctx.Err()
}

// copier moves the rows of one table.
type copier struct {
	copied
	report            *Report
	columns           []string
	old, new          *sql.DB
	read, write, same string
	saved             int64
}

// batch is how many rows are saved in one transaction.
const batch = 1000

// rows saves rows with a key from lo to hi in an order, and returns the key where
// reading failed; the far end of what was asked for when it did not. An error is of
// the new database, or ctx's.
func (c *copier) rows(ctx context.Context, lo, hi int64, order string) (at int64, err error) {
	at, end := lo, hi
	if order != "" {
		at, end = hi, lo
	}
	rows, err := c.old.QueryContext(ctx, c.read+order, lo, hi)
	if err != nil {
		return at, ctx.Err()
	}
	defer rows.Close()
	for {
		n, key, err := c.some(ctx, rows)
		if err != nil {
			return at, err
		}
		if n > 0 {
			at = key
		}
		if n < batch {
			break
		}
	}
	if rows.Err() == nil {
		return end, nil
	}
	return at, ctx.Err()
}

// some saves up to a batch of rows; key is that of the last one.
func (c *copier) some(ctx context.Context, rows *sql.Rows) (n int, key int64, err error) {
	tx, err := c.new.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	insert, err := tx.PrepareContext(ctx, c.write)
	if err != nil {
		return 0, 0, errors.Join(err, tx.Rollback())
	}
	values := make([]any, len(c.columns))
	var into []any
	for i := range values {
		into = append(into, &values[i])
	}
	into = append(into, &key) // the one that may be of another kind: the rest is told of
	for n < batch && rows.Next() {
		n++
		if err := rows.Scan(into...); err != nil {
			c.leftOut(values, err)
			continue
		}
		if err := c.save(ctx, tx, insert, values); err != nil {
			return n, key, errors.Join(err, tx.Rollback())
		}
	}
	return n, key, tx.Commit()
}

// save saves a row, unless it is there already since it was read twice. One that has no
// place among the others is told of. An error is of the new database, or ctx's.
func (c *copier) save(ctx context.Context, tx *sql.Tx, insert *sql.Stmt, values []any) error {
	done, err := insert.ExecContext(ctx, values...)
	if errors.Is(wrap(err), queue.ErrConflict) {
		c.leftOut(values, err)
		return nil
	}
	if err != nil {
		return err
	}
	n, err := done.RowsAffected()
	if c.saved += n; n > 0 || err != nil {
		return err
	}
	var there bool
	if err := tx.QueryRowContext(ctx, c.same, values...).Scan(&there); err != nil {
		return err
	}
	if !there {
		c.leftOut(values, errors.New("another row has its place"))
	}
	return nil
}

// leftOut notes a row that was read and could not be saved.
func (c *copier) leftOut(values []any, why error) {
	var key []string
	for i, name := range c.columns {
		switch v := values[i].(type) {
		case nil:
		case int64:
			if name == "message" || c.table == "messages" && name == "id" {
				key = append(key, queue.MessageID(v).String())
			} else if name == "id" || name == "n" || name == "number" {
				key = append(key, fmt.Sprint(v))
			}
		case string:
			if name == "address" || name == "sender" || name == "kind" || name == "value" || name == "export" {
				key = append(key, address.OneLine(v, maxNamed))
			}
		}
	}
	c.report.lost(fmt.Sprintf("%s: row %s cannot be ours: %v", c.table, strings.Join(key, " "), why))
}

// maxNamed bounds a text in a line of a report, bytes.
const maxNamed = 320
