package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tabard/migrations"
	"tabard/queue"
)

// Report tells what Repair saved and what it did not.
type Report struct {
	Sound     bool              `json:"sound"`               // there was nothing to repair, and nothing was changed
	Damaged   string            `json:"damaged,omitempty"`   // the new name of the damaged database
	Bodies    string            `json:"bodies,omitempty"`    // the directory of bodies that no message has any more
	Messages  int64             `json:"messages"`            // saved
	Envelopes int64             `json:"envelopes"`           // saved
	Holds     int64             `json:"holds"`               // saved
	Lost      []string          `json:"lost,omitempty"`      // what was read, and is of no use without the rest of it, or is none of ours
	LostMore  int64             `json:"lost_more,omitempty"` // how much more of that there is than Lost has lines
	Moved     []queue.MessageID `json:"moved,omitempty"`     // messages whose text is in Bodies
	Unread    []string          `json:"unread,omitempty"`    // where rows could not be read
}

// maxLost bounds the lines of a report.
const maxLost = 10_000

// lost notes what is not saved though it was read.
func (r *Report) lost(line string) {
	if len(r.Lost) < maxLost {
		r.Lost = append(r.Lost, line)
	} else {
		r.LostMore++
	}
}

// Repair saves what can be read of the damaged queue database at path into a new one,
// which takes its place; the damaged one and its log are kept under another name. No
// process may have the queue open. Until the last step nothing that is there is
// changed, and it can be run again.
func Repair(ctx context.Context, path string) (_ Report, err error) {
	fail := func(err error) (Report, error) {
		return Report{}, fmt.Errorf("queue database %s: %w", path, wrap(err))
	}
	s, err := Open(ctx, path) // looks, as a start would
	if err == nil {
		return Report{Sound: true}, s.Close()
	}
	if !errors.Is(err, queue.ErrCorrupt) {
		return Report{}, err
	}
	files, err := openBodyFiles(filepath.Join(filepath.Dir(path), "messages"), system{}, newHealth())
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, files.lock.Close()) }()
	r := &repair{path: path, made: made(path), files: files}
	if err := r.begin(ctx); err != nil {
		return fail(errors.Join(err, r.end()))
	}
	err = r.save(ctx)
	if closed := r.end(); err == nil {
		err = closed
	}
	if err == nil {
		err = r.swap(time.Now())
	}
	if err != nil {
		return fail(err)
	}
	return r.Report, nil
}

// repair is a repair at work.
type repair struct {
	Report
	path, made string
	files      *bodyFiles
	old, new   *sql.DB
	orphans    []string // files of bodies
}

// begin makes the new database, and opens the old one as far as that can be.
func (r *repair) begin(ctx context.Context) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(r.made + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := private(r.made); err != nil {
		return err
	}
	s := &Store{path: r.made}
	var err error
	if r.new, err = s.connect(1); err != nil {
		return err
	}
	if _, _, err = migrations.Up(ctx, r.new, migrations.SQLite, migrations.Queue); err != nil {
		return err
	}
	if err := checkLog(r.path + "-wal"); errors.Is(err, queue.ErrCorrupt) {
		r.Unread = append(r.Unread, fmt.Sprintf("what was stored last: %v", err))
	}
	r.old, err = readOnly(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// end closes both, the new one with all that it has synced.
func (r *repair) end() error {
	var errs []error
	if r.old != nil {
		errs = append(errs, r.old.Close())
	}
	if r.new != nil {
		_, err := checkpoint(context.Background(), r.new, "TRUNCATE")
		errs = append(errs, err, r.new.Close())
	}
	return errors.Join(errs...)
}

// save copies what can be read.
func (r *repair) save(ctx context.Context) error {
	if r.old != nil {
		tables, err := r.tables(ctx)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if err := r.copy(ctx, t); err != nil {
				return fmt.Errorf("%s: %w", t.table, err)
			}
		}
	}
	if err := r.tidy(ctx); err != nil {
		return err
	}
	return r.count(ctx)
}

// tables lists what there is to save, and by which number.
func (r *repair) tables(ctx context.Context) ([]copied, error) {
	rows, err := r.new.QueryContext(ctx, `SELECT t.name, coalesce((SELECT c.name FROM pragma_table_info(t.name) c WHERE c.pk = 1 AND c.type = 'INTEGER'), 'rowid')
		FROM sqlite_schema t WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND t.name NOT LIKE 'tabard\_%' ESCAPE '\' ORDER BY t.rowid`)
	return collect(rows, err, func(rows *sql.Rows) (t copied, err error) {
		err = rows.Scan(&t.table, &t.key)
		return t, err
	})
}

// tidy takes out what is of no use alone, and says what that was.
func (r *repair) tidy(ctx context.Context) error {
	if err := r.lose(ctx, "SELECT message, address FROM envelopes WHERE message NOT IN (SELECT id FROM messages) ORDER BY 1",
		"%s to <%s>: its message could not be read"); err != nil {
		return err
	}
	if err := r.lose(ctx, "SELECT id, sender FROM messages WHERE id NOT IN (SELECT message FROM envelopes) ORDER BY 1",
		"%s from <%s>: its recipients could not be read"); err != nil {
		return err
	}
	for _, q := range []string{
		"DELETE FROM envelopes WHERE message NOT IN (SELECT id FROM messages)",
		"DELETE FROM messages WHERE id NOT IN (SELECT message FROM envelopes)",
		"UPDATE envelopes SET lease = NULL WHERE lease IS NOT NULL",
	} {
		if _, err := r.new.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return r.files.each(func(name string) error {
		id, _, err := queue.ParseID(name)
		if err != nil {
			return nil // not ours
		}
		var n int
		err = r.new.QueryRowContext(ctx, "SELECT count(*) FROM messages WHERE file = ?", name).Scan(&n)
		if n == 0 && err == nil {
			r.orphans, r.Moved = append(r.orphans, name), append(r.Moved, id)
		}
		return err
	})
}

// lose notes what a query finds.
func (r *repair) lose(ctx context.Context, query, format string) error {
	rows, err := r.new.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id queue.MessageID
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			return err
		}
		r.lost(fmt.Sprintf(format, id, text))
	}
	return rows.Err()
}

func (r *repair) count(ctx context.Context) error {
	return r.new.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM envelopes), (SELECT count(*) FROM holds)").
		Scan(&r.Messages, &r.Envelopes, &r.Holds)
}

// swap puts the new database in the place of the old one, which has another name, too,
// by then, and so has its log.
func (r *repair) swap(now time.Time) error {
	if err := r.keep(now); err != nil {
		return err
	}
	return r.files.finishSwap(r.path)
}

// keep gives what there was its other names, and makes durable that the new database
// is to take the place.
func (r *repair) keep(now time.Time) error {
	f, err := os.OpenFile(r.made, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := r.moveBodies(); err != nil {
		return err
	}
	r.Damaged = r.path + now.UTC().Format(".damaged-20060102T150405Z")
	if err := os.Link(r.path+"-wal", r.Damaged+"-wal"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(r.path, r.Damaged); errors.Is(err, os.ErrNotExist) {
		r.Damaged = ""
	} else if err != nil {
		return err
	}
	if err := (system{}).SyncDir(filepath.Dir(r.path)); err != nil {
		return err
	}
	return r.files.mark(markSwap)
}

// made is the name of the database that a repair makes.
func made(path string) string { return path + ".repair" }

// finishSwap does what is left of a swap, also of one that ended with its process or
// the power. Without its log the old database must never be opened, as mail that is
// only there would be lost; and with it the new one must not be, which SQLite would
// take it for the log of.
func (b *bodyFiles) finishSwap(path string) error {
	dir := filepath.Dir(path)
	if _, err := os.Stat(made(path)); err == nil {
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := (system{}).SyncDir(dir); err != nil {
			return err
		}
		if err := os.Rename(made(path), path); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := (system{}).SyncDir(dir); err != nil {
		return err
	}
	return b.mark(markClean)
}

// swapping finishes a swap that did not come to its end.
func (b *bodyFiles) swapping(path string) error {
	mark, err := b.marked()
	if err != nil || mark != markSwap {
		return err
	}
	return b.finishSwap(path)
}

// moveBodies puts the bodies that no message has where no start removes them.
func (r *repair) moveBodies() error {
	if len(r.orphans) == 0 {
		return nil
	}
	r.Bodies = r.path + ".lost"
	if err := os.Mkdir(r.Bodies, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, name := range r.orphans {
		if err := os.Rename(r.files.path(name), filepath.Join(r.Bodies, name)); err != nil {
			return err
		}
	}
	return errors.Join(system{}.SyncDir(r.Bodies), system{}.SyncDir(r.files.dir))
}

// columnsOf lists the columns of a table that two databases have.
func columnsOf(ctx context.Context, table string, dbs ...*sql.DB) ([]string, error) {
	seen := make(map[string]int)
	var names []string
	for _, db := range dbs {
		rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
		has, err := collect(rows, err, func(rows *sql.Rows) (name string, err error) {
			err = rows.Scan(&name)
			return name, err
		})
		if err != nil {
			return nil, err
		}
		names = names[:0]
		for _, name := range has {
			if seen[name]++; seen[name] == len(dbs) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

func list(names []string) string { return strings.Join(names, ", ") }
