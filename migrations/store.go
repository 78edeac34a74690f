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
	exists string // a query with the table's name as parameter
}

func newStore(dialect string, s Schema) (store, error) {
	var goose database.Dialect
	var exists string
	switch dialect {
	case SQLite:
		goose = database.DialectSQLite3
		exists = "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?"
	case Postgres:
		goose = database.DialectPostgres
		exists = "SELECT to_regclass($1) IS NOT NULL" // by the search path
	default:
		return store{}, fmt.Errorf("no migrations for dialect %q", dialect)
	}
	st, err := database.NewStore(goose, tableName(s))
	return store{st, exists}, err
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
	var ok bool
	err := db.QueryRowContext(ctx, s.exists, s.Tablename()).Scan(&ok)
	return ok, err
}

// version reads the schema's version; a database without version table has 0.
func version(ctx context.Context, db *sql.DB, dialect string, s Schema) (int64, error) {
	st, err := newStore(dialect, s)
	if err != nil {
		return 0, err
	}
	ok, err := st.TableExists(ctx, db)
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
	if isPostgresBusy(err) {
		return true
	}
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
}
