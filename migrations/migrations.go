// Package migrations brings the SQL schemas that Tabard owns to their current
// version: numbered files per dialect and schema, embedded in the program.
//
// Files lie in DIALECT/SCHEMA/NNNN_name.sql, in goose's format. A released file
// never changes; a change of the schema is a new file. Every file runs in one
// transaction together with the record that it ran.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed sqlite postgres
var files embed.FS

// Schema names one set of tables. Several schemas may live in one database:
// each keeps its own version, in the table "tabard_SCHEMA_version".
type Schema string

// The schemas of Tabard.
const (
	Provision Schema = "provision" // domains, users, aliases, certificates, ...: what tables are served from
	Queue     Schema = "queue"     // messages and envelopes
	EventLog  Schema = "eventlog"  // what became of mail
)

// The dialects, and with them the drivers that a database was opened with.
const (
	SQLite   = "sqlite"   // modernc.org/sqlite
	Postgres = "postgres" // pgx; see OpenPostgres
)

// ErrNewer means that a database was migrated by a newer program than this
// one. Nothing is changed: going back is refused.
var ErrNewer = errors.New("database schema is newer than this program")

// Up applies what is missing of schema s, and returns the version before and
// after. It is safe when several processes do so at once: each file is applied
// once, the others see it done. Waiting for another writer ends with ctx.
func Up(ctx context.Context, db *sql.DB, dialect string, s Schema) (from, to int64, err error) {
	from, want, err := Status(ctx, db, dialect, s)
	if err != nil || from == want {
		return from, from, err
	}
	p, err := provider(db, dialect, s)
	if err != nil {
		return from, from, err
	}
	to, err = raise(ctx, db, dialect, s, p, from)
	if err != nil {
		return from, to, fmt.Errorf("migrate schema %s from version %d: %w", s, to, err)
	}
	return from, to, nil
}

// Status returns the version that the database has (0: none) and the newest
// one embedded. It changes nothing. A newer database is ErrNewer.
func Status(ctx context.Context, db *sql.DB, dialect string, s Schema) (have, want int64, err error) {
	want, err = newest(dialect, s)
	if err != nil {
		return 0, 0, err
	}
	have, err = version(ctx, db, dialect, s)
	if err != nil {
		return 0, want, fmt.Errorf("version of schema %s: %w", s, err)
	}
	if have > want {
		return have, want, fmt.Errorf("%w: schema %s has version %d, the program knows %d", ErrNewer, s, have, want)
	}
	return have, want, nil
}

// raise runs the provider until the schema is current. A failed run is
// repeated when somebody else moved the version on meanwhile, or holds the
// database: the loser of a race has changed nothing.
func raise(ctx context.Context, db *sql.DB, dialect string, s Schema, p *goose.Provider, have int64) (int64, error) {
	const pause = 20 * time.Millisecond
	for busy := 0; ; {
		_, err := p.Up(ctx)
		now, want, verr := Status(ctx, db, dialect, s)
		switch {
		case err == nil, verr != nil:
			return now, verr
		case now == want:
			return now, nil
		case now > have:
			have = now
			continue
		case !isBusy(err) || busy == 100:
			return now, err
		}
		busy++
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func provider(db *sql.DB, dialect string, s Schema) (*goose.Provider, error) {
	dir, err := fs.Sub(files, dialect+"/"+string(s))
	if err != nil {
		return nil, err
	}
	st, err := newStore(dialect, s)
	if err != nil {
		return nil, err
	}
	opts := []goose.ProviderOption{goose.WithStore(st), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger())}
	if dialect == Postgres {
		opts = append(opts, goose.WithSessionLocker(advisoryLock(st.Tablename())))
	}
	p, err := goose.NewProvider(database.DialectCustom, db, dir, opts...)
	if err != nil {
		return nil, fmt.Errorf("schema %s for %s: %w", s, dialect, err)
	}
	return p, nil
}

// newest returns the highest number among the embedded files.
func newest(dialect string, s Schema) (int64, error) {
	names, err := fs.Glob(files, dialect+"/"+string(s)+"/*.sql")
	if err != nil {
		return 0, err
	}
	var top int64
	for _, name := range names {
		n, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("migration %s: %w", name, err)
		}
		top = max(top, n)
	}
	if top == 0 {
		return 0, fmt.Errorf("no schema %q for dialect %q", s, dialect)
	}
	return top, nil
}
