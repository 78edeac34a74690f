package eventdb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"tabard/internal/eventlog"
	"tabard/migrations"
)

// statement is one that adds so many rows of a kind.
type statement struct {
	kind eventlog.Kind
	rows int
}

// statements are those that SQLite has prepared: to read the text of one with thousands of
// parameters again and again costs up to a fifth of all that writing does. They are of
// one database, and end with it. PostgreSQL's driver keeps its own.
type statements struct {
	db   *sql.DB
	made map[statement]*sql.Stmt
}

// of returns a statement.
func (s *statements) of(ctx context.Context, st statement) (*sql.Stmt, error) {
	if made := s.made[st]; made != nil {
		return made, nil
	}
	row := "(" + strings.Repeat("?,", len(eventlog.New(st.kind).Fields())) + "?)"
	made, err := s.db.PrepareContext(ctx, insertInto(st.kind)+"VALUES "+row+strings.Repeat(","+row, st.rows-1)+onConflict)
	if err != nil {
		return nil, err
	}
	s.made[st] = made
	return made, nil
}

// add adds the rows of a batch, and one about it.
func (d dialect) add(ctx context.Context, tx *sql.Tx, b *eventlog.Batch, prepared *statements) (fresh int64, err error) {
	id, err := d.begin(ctx, tx, b)
	if err != nil {
		return 0, fmt.Errorf("log_batches: %w", err)
	}
	for _, k := range eventlog.Kinds() {
		for list := b.Of(k); len(list) > 0; {
			n := d.rows(len(list))
			added, err := d.insert(ctx, tx, prepared, k, list[:n], id)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", tableOf(k), err)
			}
			fresh += added
			list = list[n:]
		}
	}
	return fresh, nil
}

// rows is how many of n events one statement takes. For SQLite, which takes 32,766
// parameters, few numbers do, so that few statements are kept.
func (d dialect) rows(n int) int {
	if d == migrations.Postgres {
		return min(n, eventlog.MaxBatch)
	}
	for _, rows := range []int{64, 8} {
		if n >= rows {
			return rows
		}
	}
	return 1
}

const onConflict = " ON CONFLICT DO NOTHING"

func insertInto(k eventlog.Kind) string {
	return "INSERT INTO " + tableOf(k) + " (" + columnsOf(k) + ", batch) "
}

// insert adds events of one kind, which come with a batch.
func (d dialect) insert(ctx context.Context, tx *sql.Tx, prepared *statements, k eventlog.Kind, list []eventlog.Event, batch int64) (added int64, err error) {
	var r sql.Result
	if d == migrations.Postgres {
		text, args := unnest(list)
		args = append(args, batch)
		r, err = tx.ExecContext(ctx, fmt.Sprintf("%sSELECT *, $%d::bigint FROM unnest(%s)%s", insertInto(k), len(args), text, onConflict), args...)
	} else {
		var s *sql.Stmt
		if s, err = prepared.of(ctx, statement{k, len(list)}); err == nil {
			r, err = tx.StmtContext(ctx, s).ExecContext(ctx, d.values(list, batch)...)
		}
	}
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// values are the parameters of events, one after the other.
func (d dialect) values(list []eventlog.Event, batch int64) (args []any) {
	for _, e := range list {
		fields := e.Fields()
		if args == nil {
			args = make([]any, 0, len(list)*(len(fields)+1))
		}
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
	return args
}
