package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	_ "modernc.org/sqlite" // the driver of the databases that migrate opens

	"tabard/internal/config"
	"tabard/lookup"
	"tabard/migrations"
)

// toolTimeout bounds what a command line tool waits for tables and servers.
const toolTimeout = time.Minute

func newCheck(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, every table and every certificate",
		Long: `Check reads the configuration, asks every table for what it is used for, and looks at
every certificate, authority and relay URL. Each problem is one line with its place.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			if err := refuse(cfg); err != nil {
				return err
			}
			return withService(cfg, g.path(), func(ctx context.Context, svc *lookup.Service) error {
				return g.report(cmd, svc.Check(ctx))
			})
		},
	}
}

// report prints what check found; a fault that is no mere warning is an error.
func (g *globals) report(cmd *cobra.Command, found []lookup.Problem) error {
	faults := 0
	for _, p := range found {
		word := "error"
		if p.Warning {
			word = "warning"
		} else {
			faults++
		}
		if !g.json {
			_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", word, p)
		}
	}
	if g.json {
		if err := printJSON(cmd.OutOrStdout(), append([]lookup.Problem{}, found...)); err != nil {
			return err
		}
	}
	if faults > 0 {
		return exitf(exConfig, "%s: %d problems", g.path(), faults)
	}
	if !g.json {
		_, _ = fmt.Fprintln(cmd.OutOrStdout(), "configuration OK")
	}
	return nil
}

// withService opens the tables of a configuration for a command line tool.
func withService(cfg *config.Config, path string, f func(context.Context, *lookup.Service) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	withSocket(cfg)
	svc, err := openLookup(ctx, cfg, serverName(cfg, path), dnsConfig{cfg.Resolvers}, slog.New(slog.DiscardHandler))
	if err != nil {
		return withCode(exConfig, err)
	}
	return errors.Join(f(ctx, svc), svc.Close())
}

func newMigrate(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the databases of Tabard's own schema, and the queue, to this version",
		Long: `Migrate creates or upgrades every SQLite database that the configuration declares with
Tabard's own schema, and the queue's. A database that is newer than this program is
refused and left alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			for _, t := range cfg.Tables {
				if t.Kind != "sqlite" || strings.HasSuffix(t.Source, ".conf") {
					continue
				}
				if err := migrate(cmd, "table "+t.Name, t.Source, migrations.Provision); err != nil {
					return err
				}
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
			return migrate(cmd, "queue", path, migrations.Queue)
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
	defer func() { _ = f.Close() }()
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	if owner, ok := dir.Sys().(*syscall.Stat_t); ok && os.Getuid() == 0 {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

func migrate(cmd *cobra.Command, what, path string, schema migrations.Schema) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return withCode(exCantCreat, err)
	}
	// The database may hold keys: made here, it is nobody else's to read.
	if err := createFor(path); err != nil {
		return withCode(exCantCreat, err)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return withCode(exCantCreat, err)
	}
	defer func() { _ = db.Close() }()
	from, to, err := migrations.Up(ctx, db, "sqlite", schema)
	if err != nil {
		return exitf(exDataErr, "%s: %s: %w", what, path, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s: version %d, was %d\n", what, path, to, from)
	return err
}
