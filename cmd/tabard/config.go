package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/config"
)

// configEditor edits configurations that are kept in a database.
type configEditor struct {
	*editor
	author string
	base   int64
	force  bool
}

func newConfig(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "config", "Configurations in a database, with their history")
	cmd.Long = `Config reads and writes the configurations of the service config, which servers
started with -c sqlite:... or -c postgres:... follow. The database is the one of -c,
or the table --table of a configuration file. --config-name tells which configuration
is meant. Nothing is ever overwritten: each change is a new version.`
	c := &configEditor{editor: e}
	cmd.AddCommand(c.get(), c.set(), c.history(), c.rollback())
	return cmd
}

// withConfigs opens the database that holds configurations.
func (c *configEditor) withConfigs(f func(context.Context, *provision.DB, confSource) error) error {
	src := c.g.source()
	if !src.database() {
		return c.with(context.Background(), func(ctx context.Context, db *provision.DB) error { return f(ctx, db, src) })
	}
	src, err := src.absolute()
	if err != nil {
		return err
	}
	kind, source := src.backend()
	at, own, err := database(config.Table{Kind: kind, Source: source})
	if err != nil {
		return exitf(exConfig, "%s: %w", src, err)
	}
	if !own {
		return exitf(exUsage, "%s does not have Tabard's own schema: its rows are edited with its own tools", src)
	}
	return withDatabase(context.Background(), at, func(ctx context.Context, db *provision.DB) error { return f(ctx, db, src) })
}

// current returns the name that is meant, and its newest text: the first of the
// names that a server would look for and that is there.
func (c *configEditor) current(ctx context.Context, db *provision.DB, src confSource) (name, text string, version int64, err error) {
	names := src.names()
	for _, name := range names {
		text, version, err = db.Config(ctx, name, 0)
		if err == nil || !errors.Is(err, provision.ErrNone) {
			return name, text, version, err
		}
	}
	return names[len(names)-1], "", 0, err
}

func (c *configEditor) get() *cobra.Command {
	var version int64
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Print a configuration",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withConfigs(func(ctx context.Context, db *provision.DB, src confSource) error {
				name, text, _, err := c.current(ctx, db, src)
				if err == nil && version > 0 {
					text, _, err = db.Config(ctx, name, version)
				}
				if err != nil {
					return err
				}
				_, err = io.WriteString(cmd.OutOrStdout(), text)
				return err
			})
		},
	}
	cmd.Flags().Int64Var(&version, "version", 0, "`number` of the version (default the newest)")
	return cmd
}

// changes are the flags of what makes a new version.
func (c *configEditor) changes(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.author, "author", "", "who makes the change (default the user who runs this)")
	cmd.Flags().Int64Var(&c.base, "if-version", -1, "store only if this `number` is the newest version; 0: if there is none yet")
	cmd.Flags().BoolVar(&c.force, "force", false, "store it even if it has faults; servers go on with the one before")
	return cmd
}

func (c *configEditor) set() *cobra.Command {
	return c.changes(&cobra.Command{
		Use:   "set FILE",
		Short: "Store a configuration (- is standard input); servers that follow it take it up",
		Long: `Set checks a configuration and stores it as a new version. Servers that follow it
check it too, and take it up at once, or stay with the one before and say why: see
tabard status.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			return c.withConfigs(func(ctx context.Context, db *provision.DB, src confSource) error {
				name, _, old, err := c.current(ctx, db, src)
				if err != nil && !errors.Is(err, provision.ErrNone) {
					return err
				}
				return c.store(ctx, cmd, db, src, confText{name, text}, old)
			})
		},
	})
}

// store checks a text and makes it the newest version.
func (c *configEditor) store(ctx context.Context, cmd *cobra.Command, db *provision.DB, src confSource, text confText, old int64) error {
	if err := checkText(src, text); err != nil {
		if !c.force {
			return exitf(exDataErr, "%w (nothing was stored; --force stores it all the same)", err)
		}
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "warning: %v\n", err)
	}
	version, err := db.SetConfig(ctx, text.Name, text.Text, cmp.Or(c.author, whoami()), c.base)
	if err != nil {
		return err
	}
	if c.g.json {
		return printJSON(cmd.OutOrStdout(), map[string]any{"name": text.Name, "version": version, "was": old})
	}
	if version == old {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "configuration %s: version %d, unchanged\n", text.Name, version)
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "configuration %s: version %d, was %d\n", text.Name, version, old)
	}
	return err
}

// checkText reads a configuration as a server would that has it from a database.
func checkText(src confSource, text confText) error {
	if !src.database() {
		src = confSource{path: "sqlite:", name: src.name, macros: src.macros, dialect: src.dialect}
	}
	l, err := src.parse(text)
	if err != nil {
		return err
	}
	return refuse(l.cfg)
}

// whoami names the person at the keyboard, behind sudo too.
func whoami() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func (c *configEditor) history() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "List the versions of every configuration, or of the one of --config-name",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withConfigs(func(ctx context.Context, db *provision.DB, _ confSource) error {
				all, err := db.ConfigHistory(ctx, c.g.name)
				if err != nil {
					return err
				}
				rows := make([][]string, 0, len(all))
				for _, v := range all {
					rows = append(rows, []string{v.Name, strconv.FormatInt(v.Version, 10), v.Created.Format(time.RFC3339), dash(v.Author), strconv.FormatInt(v.Bytes, 10)})
				}
				return c.g.printList(cmd, append([]provision.ConfigVersion{}, all...), []string{"NAME", "VERSION", "CREATED", "AUTHOR", "BYTES"}, rows)
			})
		},
	}
}

func (c *configEditor) rollback() *cobra.Command {
	return c.changes(&cobra.Command{
		Use:   "rollback [VERSION]",
		Short: "Make an earlier version the newest again (default the one before)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withConfigs(func(ctx context.Context, db *provision.DB, src confSource) error {
				name, _, newest, err := c.current(ctx, db, src)
				if err != nil {
					return err
				}
				to := newest - 1
				if len(args) > 0 {
					if to, err = strconv.ParseInt(args[0], 10, 32); err != nil || to < 1 {
						return exitf(exUsage, "version %q: not a number from 1", args[0])
					}
				}
				if to < 1 {
					return exitf(exDataErr, "configuration %s: version %d is the first", name, newest)
				}
				text, _, err := db.Config(ctx, name, to)
				if err != nil {
					return err
				}
				return c.store(ctx, cmd, db, src, confText{name, text}, newest)
			})
		},
	})
}
