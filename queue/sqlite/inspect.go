package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tabard/internal/bodycode"
	"tabard/migrations"
	"tabard/queue"
)

// Inspection is a queue.Store that changes nothing: what a damaged database has that
// can be read. Nothing in it is due.
type Inspection struct {
	*Store
	why error
}

var _ queue.Store = (*Inspection)(nil)

// Inspect opens the damaged database at path for reading only; why is what Open said,
// and what is answered to whoever wants to store. Of a file that cannot be read at
// all there is nothing to see.
func Inspect(ctx context.Context, path string, why error) (*Inspection, error) {
	s := &Store{path: path, under: under{disk: system{}}, health: newHealth()}
	s.health.tolerant = true
	plain, err := bodycode.New(bodycode.Options{})
	if err != nil {
		return nil, err
	}
	s.coder.Store(plain)
	if s.files, err = openBodyFiles(filepath.Join(filepath.Dir(path), "messages"), s.under.disk, s.health); err != nil {
		return nil, fmt.Errorf("queue database %s: %w", path, err)
	}
	if s.read, err = readOnly(path); err == nil {
		s.reads, err = newReader(ctx, s.read, s.health)
	}
	if err != nil {
		err = s.readNothing(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("queue database %s: %w", path, err), s.files.lock.Close())
	}
	return &Inspection{s, fmt.Errorf("%w: %w", queue.ErrReadOnly, why)}, nil
}

// readOnly opens a database that is there.
func readOnly(path string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(abs); err != nil {
		return nil, err
	}
	q := url.Values{"mode": {"ro"}, "_pragma": {"writable_schema(1)", "busy_timeout(10000)", "query_only(1)", "wal_autocheckpoint(0)"}}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: abs}).EscapedPath()+"?"+q.Encode())
}

// readNothing puts an empty database in memory in the place of one that nothing can
// be read from.
func (s *Store) readNothing(ctx context.Context) error {
	if s.read != nil {
		s.read.Close()
	}
	var err error
	if s.read, err = sql.Open("sqlite", ":memory:"); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(1) // each would have its own
	if _, _, err := migrations.Up(ctx, s.read, migrations.SQLite, migrations.Queue); err != nil {
		return err
	}
	s.reads, err = newReader(ctx, s.read, s.health)
	return err
}

// Writable implements queue.Store: it is ErrReadOnly.
func (s *Inspection) Writable() error { return s.why }

// Apply implements queue.Store: it changes nothing.
func (s *Inspection) Apply(context.Context, []*queue.Change) error { return s.why }

// Stage implements queue.Store: it takes nothing.
func (s *Inspection) Stage() (queue.Stage, error) { return nil, s.why }

// Due implements queue.Store: nothing is.
func (s *Inspection) Due(context.Context, queue.DueQuery) ([]queue.Stored, error) { return nil, nil }

// Next implements queue.Store: there is none.
func (s *Inspection) Next(context.Context, queue.Lane, time.Time) (time.Time, error) {
	return time.Time{}, nil
}

// Holds implements queue.Store. Those that cannot be read are of no consequence here.
func (s *Inspection) Holds(ctx context.Context) ([]queue.Hold, error) {
	all, err := s.Store.Holds(ctx)
	return all, ctxOnly(ctx, err)
}

// Count implements queue.Store. What cannot be counted counts as none.
func (s *Inspection) Count(ctx context.Context) (func() (messages, envelopes int64, err error), error) {
	count, err := s.Store.Count(ctx)
	return func() (messages, envelopes int64, _ error) {
		if err == nil {
			messages, envelopes, err = count()
		}
		return messages, envelopes, ctxOnly(ctx, err)
	}, nil
}

// ctxOnly drops an error that is not of ctx.
func ctxOnly(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return ctx.Err()
}

// Find implements queue.Store. It goes past what cannot be read.
func (s *Inspection) Find(ctx context.Context, q queue.Query) ([]queue.Stored, error) {
	return past(ctx, q.After, func(from queue.EnvelopeID) ([]queue.Stored, error) {
		q.After = from
		return s.Store.Find(ctx, q)
	})
}

// past reads what comes first after an envelope and can be read. Ids begin with the
// time: looking twice as far each time, not much is missed of what follows damage.
func past(ctx context.Context, after queue.EnvelopeID, read func(queue.EnvelopeID) ([]queue.Stored, error)) ([]queue.Stored, error) {
	for step := queue.MessageID(0); ; step = max(1<<20, 2*step) {
		from := after
		if step > 0 {
			from = queue.EnvelopeID{Message: after.Message + step}
		}
		rows, err := read(from)
		if len(rows) > 0 || err == nil {
			return rows, nil
		}
		if ctx.Err() != nil || step > 1<<61 || after.Message+step < 0 {
			return nil, ctx.Err()
		}
	}
}

// Recode implements queue.CodedStore: it makes nothing.
func (s *Inspection) Recode(context.Context, bodycode.Encoding, queue.MessageID, int) ([]queue.Recoded, error) {
	return nil, s.why
}

// Close implements queue.Store. The mark stays as it is.
func (s *Inspection) Close() error {
	return errors.Join(s.reads.close(), s.read.Close(), s.files.lock.Close())
}

// Condition tells what is known to be wrong with the queue at path, without touching
// its database or the process that may have it open: an error that wraps
// queue.ErrCorrupt. nil: nothing.
func Condition(path string) error {
	dir := filepath.Join(filepath.Dir(path), "messages")
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return nil // a new spool
	}
	if err != nil {
		return err
	}
	if why, damaged := strings.CutPrefix(string(b), markDamaged); damaged {
		return fmt.Errorf("queue database %s: %w: %s", path, queue.ErrCorrupt, strings.ReplaceAll(strings.TrimSpace(why), "\n", "; "))
	}
	s := &Store{path: path, files: &bodyFiles{dir: dir}}
	if err := s.present(); err != nil {
		return fmt.Errorf("queue database %s: %w", path, err)
	}
	return nil
}
