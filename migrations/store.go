package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/pressly/goose/v3/database"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// store is goose's version table with one row per version at most: of two
// processes that apply the same file at once, one fails at the record and its
// transaction leaves no trace.
type store struct {
	database.Store
}

func newStore(dialect string, s Schema) (store, error) {
	if dialect != SQLite {
		return store{}, fmt.Errorf("no migrations for dialect %q", dialect)
	}
	st, err := database.NewStore(database.DialectSQLite3, tableName(s))
	return store{st}, err
}

func tableName(s Schema) string { return "tabard_" + string(s) + "_version" }

// CreateVersionTable creates the table and its unique index.
func (s store) CreateVersionTable(ctx context.Context, db database.DBTxConn) error {
	if err := s.Store.CreateVersionTable(ctx, db); err != nil {
		return err
	}
	_, err := db.ExecContext(ctx, "CREATE UNIQUE INDEX "+s.Tablename()+"_once ON "+s.Tablename()+" (version_id)")
	return err
}

// TableExists keeps goose from probing with a query that fails.
func (s store) TableExists(ctx context.Context, db database.DBTxConn) (bool, error) {
	return tableExists(ctx, db, s.Tablename())
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func tableExists(ctx context.Context, db querier, name string) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?", name).Scan(&n)
	return n > 0, err
}

// version reads the schema's version; a database without version table has 0.
func version(ctx context.Context, db *sql.DB, dialect string, s Schema) (int64, error) {
	st, err := newStore(dialect, s)
	if err != nil {
		return 0, err
	}
	ok, err := tableExists(ctx, db, tableName(s))
	if err != nil || !ok {
		return 0, err
	}
	v, err := st.GetLatestVersion(ctx, db)
	if errors.Is(err, database.ErrVersionNotFound) {
		return 0, nil
	}
	return v, err
}

// isBusy reports whether another connection holds the database or changed it
// under a transaction.
func isBusy(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
}
