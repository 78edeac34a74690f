package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3/lock"

	"tabard/internal/pgsource"
)

// OpenPostgres returns the database that a URL or libpq connection string names,
// for Up and Status. Nothing is connected yet.
func OpenPostgres(source string) (*sql.DB, error) {
	c, err := pgsource.Parse(source)
	if err != nil {
		return nil, err
	}
	return stdlib.OpenDB(*c), nil
}

// advisoryLock lets one process at a time bring a schema up, by the name of its
// version table.
type advisoryLock string

var _ lock.SessionLocker = advisoryLock("")

func (l advisoryLock) key() int64 {
	h := fnv.New64a()
	h.Write([]byte(l)) // never fails
	return int64(h.Sum64())
}

// SessionLock waits until the lock is free, or ctx ends.
func (l advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", l.key()); err != nil {
		return fmt.Errorf("wait for others that migrate: %w", err)
	}
	return nil
}

// SessionUnlock gives the lock back.
func (l advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", l.key())
	return err
}

// isPostgresBusy reports whether a statement lost against another one and can be
// repeated: serialization failure, deadlock, lock not available.
func isPostgresBusy(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	return e.Code == "40001" || e.Code == "40P01" || e.Code == "55P03"
}
