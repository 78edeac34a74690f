package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	_ "modernc.org/sqlite" // the driver of the queue's database

	"tabard/backends/eventdb"
	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/migrations"
)

func newMigrate(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the databases of Tabard's own schema, the event log and the queue to this version",
		Long: `Migrate creates or upgrades Tabard's own schema in every SQLite and PostgreSQL database
that the configuration declares with it, the event log's in the one of log sql, and the
queue's. SQLite databases are made; one
on PostgreSQL must be there. A schema that is newer than this program is refused and left
alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			for _, t := range cfg.Tables {
				src, own, err := database(t)
				if err != nil {
					return exitf(exConfig, "%s: table %s: %w", t.Pos, t.Name, err)
				}
				if !own {
					continue
				}
				if err := migrateTable(cmd, t.Name, src); err != nil {
					return err
				}
			}
			if err := migrateEvents(cmd, cfg); err != nil {
				return err
			}
			path := newQueueConfig(cfg, "").Path
			// Users are needed only where there is a directory to give to one.
			if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
				ids, err := identities(cfg)
				if err != nil {
					return err
				}
				if err := spool(path, ids[procQueue]); err != nil {
					return withCode(exCantCreat, err)
				}
			}
			return migrateQueue(cmd, path)
		},
	}
}

// createFor makes an empty file unless there is one. What root makes belongs to the
// owner of its directory, who is the one that runs on it later.
func createFor(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), ownAsDirectory(path))
}

// ownAsDirectory gives what root has made to the owner of its directory.
func ownAsDirectory(path string) error {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if owner, ok := dir.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
		return os.Chown(path, int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// migrateTable brings the provisioning schema of a table up.
func migrateTable(cmd *cobra.Command, name string, src provision.Source) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	if src.Path != "" {
		// The database may hold keys: made here, it is nobody else's to read.
		if err := os.MkdirAll(filepath.Dir(src.Path), 0o700); err != nil {
			return withCode(exCantCreat, err)
		}
		if err := createFor(src.Path); err != nil {
			return withCode(exCantCreat, err)
		}
	}
	from, to, err := src.Migrate(ctx)
	if err != nil {
		return exitf(exDataErr, "table %s: %w", name, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "table %s: %s: version %d, was %d\n", name, src, to, from)
	return err
}

// migrateEvents brings the schema of the event log up, whose database migrateTable made.
func migrateEvents(cmd *cobra.Command, cfg *config.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	name, src, err := eventTable(cfg)
	if err != nil || name == "" {
		return err
	}
	from, to, err := eventdb.Migrate(ctx, src)
	if err != nil {
		return exitf(exDataErr, "event log: %w", err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "event log: %s: version %d, was %d\n", src, to, from)
	return err
}

// migrateQueue brings the queue's schema up.
func migrateQueue(cmd *cobra.Command, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	if err := createFor(path); err != nil {
		return withCode(exCantCreat, err)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return withCode(exCantCreat, err)
	}
	defer func() { _ = db.Close() }()
	from, to, err := migrations.Up(ctx, db, migrations.SQLite, migrations.Queue)
	if err != nil {
		return exitf(exDataErr, "queue: %s: %w", path, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "queue: %s: version %d, was %d\n", path, to, from)
	return err
}
