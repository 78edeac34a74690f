package provision

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// stage is where the lines of an import wait, in a temporary table of one
// connection, until all of them are known to be good.
type stage struct {
	conn *sql.Conn
	d    dialect
	k    Kind
	plan plan
}

// stage makes the temporary table: the number of the line, and its values.
func (d *DB) stage(ctx context.Context, k Kind, p plan) (*stage, error) {
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	s := &stage{conn, d.d, k, p}
	if d.d == sqliteDialect {
		// Keys and hashes must not reach a temporary file.
		_, err = conn.ExecContext(ctx, `PRAGMA temp_store = MEMORY`)
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, fmt.Sprintf(`CREATE TEMPORARY TABLE tabard_import AS SELECT %s AS line, %s FROM %s WHERE 1 = 0`,
			map[dialect]string{sqliteDialect: "0", postgresDialect: "0::bigint"}[d.d], s.columns(), k.table))
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func (s *stage) close() error {
	_, err := s.conn.ExecContext(context.Background(), `DROP TABLE tabard_import`)
	return errors.Join(err, s.conn.Close())
}

// columns lists the columns that are stored.
func (s *stage) columns() string { return quoted(s.plan.stored) }

// fill puts the good lines into the temporary table, and the bad ones into done.
func (s *stage) fill(ctx context.Context, in *lines, done *Imported) error {
	return s.together(ctx, func() error {
		err := in.each(ctx, func(bundle []row) error {
			rows := make([][]any, 0, len(bundle))
			for _, r := range bundle {
				if r.err != nil {
					done.bad(r.line, r.err)
					continue
				}
				rows = append(rows, append([]any{int64(r.line)}, r.values...))
			}
			if !in.o.KeepGoing && done.Bad >= maxBadLines {
				return errEnough
			}
			if len(rows) == 0 {
				return nil
			}
			return s.insert(ctx, rows)
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	})
}

// together runs f in a transaction that takes no lock of the database: only
// the temporary table is written.
func (s *stage) together(ctx context.Context, f func() error) error {
	if s.d != sqliteDialect {
		return f()
	}
	if _, err := s.conn.ExecContext(ctx, `BEGIN DEFERRED`); err != nil {
		return err
	}
	if err := f(); err != nil {
		_, rollback := s.conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
		return errors.Join(err, rollback)
	}
	_, err := s.conn.ExecContext(ctx, `COMMIT`)
	return err
}

// insert adds lines to the temporary table.
func (s *stage) insert(ctx context.Context, rows [][]any) error {
	if s.d == postgresDialect {
		return s.conn.Raw(func(c any) error {
			_, err := c.(*stdlib.Conn).Conn().CopyFrom(ctx, pgx.Identifier{"tabard_import"}, append([]string{"line"}, s.plan.stored...), pgx.CopyFromRows(rows))
			return err
		})
	}
	values := "(?" + strings.Repeat(", ?", len(s.plan.stored)) + ")"
	_, err := s.conn.ExecContext(ctx, "INSERT INTO tabard_import VALUES "+values+strings.Repeat(", "+values, len(rows)-1), slices.Concat(rows...)...)
	return err
}

// store takes the lines over into the table, in one transaction.
func (s *stage) store(ctx context.Context, options ImportOptions, done *Imported) error {
	if _, err := s.conn.ExecContext(ctx, `ANALYZE tabard_import`); err != nil {
		return err
	}
	// One view of the table for all steps: what somebody else adds meanwhile makes
	// the last step fail, and is not lost between two others.
	var o *sql.TxOptions
	if s.d == postgresDialect {
		o = &sql.TxOptions{Isolation: sql.LevelRepeatableRead}
	}
	begun, err := s.conn.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = begun.Rollback() }() // of no effect after Commit
	t := tx{begun, s.d}
	err = s.refuseTwins(ctx, t, done)
	if err == nil && (options.Existing == RefuseExisting || !options.stops(done)) {
		err = s.existing(ctx, t, options.Existing, done)
	}
	if err == nil && options.stops(done) {
		return nil
	}
	if err == nil {
		err = s.add(ctx, t, done)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.k.table, err)
	}
	return begun.Commit()
}

// refuseTwins takes lines out that say the same as an earlier one.
func (s *stage) refuseTwins(ctx context.Context, t tx, done *Imported) error {
	if s.k.unique == nil {
		return nil
	}
	const twins = ` FROM (SELECT line, min(line) OVER (PARTITION BY %s) AS first FROM tabard_import) AS lines WHERE line <> first`
	from := fmt.Sprintf(twins, quoted(s.k.unique))
	return s.takeOut(ctx, t, done, `SELECT line, first`+from, func(first int64) error {
		return fmt.Errorf("the same %s as in line %d", strings.Join(s.k.unique, " and "), first)
	})
}

// existing deals with rows that are there already.
func (s *stage) existing(ctx context.Context, t tx, e Existing, done *Imported) error {
	there := fmt.Sprintf(` FROM tabard_import AS s JOIN %s AS t ON %s`, s.k.table, s.same(s.k.taken))
	switch {
	case e == RefuseExisting:
		return s.takeOut(ctx, t, done, `SELECT DISTINCT s.line, 0`+there, func(int64) error { return ErrExists })
	case e == SkipExisting || s.k.update && len(s.plan.stored) == 1:
		n, err := s.rows(ctx, t, `DELETE FROM tabard_import WHERE line IN (SELECT s.line`+there+`)`)
		done.Skipped += n
		return err
	case s.k.update:
		return s.update(ctx, t, done, there)
	}
	n, err := s.rows(ctx, t, fmt.Sprintf(`DELETE FROM %s AS t WHERE %s IN (SELECT "%s" FROM tabard_import)`, s.k.table, s.fold(s.k.group), s.k.group))
	done.Replaced += n
	return err
}

// update changes rows that are there in what the lines say.
func (s *stage) update(ctx context.Context, t tx, done *Imported, there string) error {
	var set []string
	for _, c := range s.plan.stored[1:] {
		set = append(set, fmt.Sprintf(`"%s" = s."%s"`, c, c))
	}
	n, err := s.rows(ctx, t, fmt.Sprintf(`UPDATE %s AS t SET %s FROM tabard_import AS s WHERE %s`, s.k.table, strings.Join(set, ", "), s.same(s.k.taken)))
	if err != nil {
		return err
	}
	done.Replaced += n
	_, err = s.rows(ctx, t, `DELETE FROM tabard_import WHERE line IN (SELECT s.line`+there+`)`)
	return err
}

// add inserts the lines that are left.
func (s *stage) add(ctx context.Context, t tx, done *Imported) error {
	columns := s.columns()
	n, err := s.rows(ctx, t, fmt.Sprintf(`INSERT INTO %s (%s) SELECT %s FROM tabard_import ORDER BY line`, s.k.table, columns, columns))
	if isTaken(err) || isOvertaken(err) {
		return fmt.Errorf("somebody else added one of them meanwhile: %w", ErrExists)
	}
	done.Added += n
	if err == nil && s.k.after != "" {
		_, err = t.ExecContext(ctx, s.k.after)
	}
	return err
}

// takeOut names the lines that a query selects, by their number and one more, as
// bad, and takes them out of the temporary table.
func (s *stage) takeOut(ctx context.Context, t tx, done *Imported, query string, why func(int64) error) error {
	rows, err := t.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	found := false
	for rows.Next() {
		var line, other int64
		if err := rows.Scan(&line, &other); err != nil {
			return err
		}
		found = true
		done.bad(int(line), why(other))
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || !found {
		return err
	}
	_, err = s.rows(ctx, t, `DELETE FROM tabard_import WHERE line IN (SELECT line FROM (`+query+`) AS found)`)
	return err
}

func (s *stage) rows(ctx context.Context, t tx, query string) (int64, error) {
	r, err := t.ExecContext(ctx, query)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// same compares columns of the table, t, and of the lines, s, which hold them as
// they are looked up.
func (s *stage) same(columns []string) string {
	var all []string
	for _, c := range columns {
		all = append(all, fmt.Sprintf(`%s = s."%s"`, s.fold(c), c))
	}
	return strings.Join(all, " AND ")
}

// fold names a column of t as it is compared: see dialect.text.
func (s *stage) fold(column string) string {
	name := fmt.Sprintf(`t."%s"`, column)
	if s.d == postgresDialect && slices.Contains(s.k.folded, column) {
		return "lower(" + name + ")"
	}
	return name
}

func quoted(columns []string) string { return `"` + strings.Join(columns, `", "`) + `"` }
