package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tabard/backends/postgres"
	"tabard/backends/provision"
	"tabard/backends/sqlite"
	"tabard/internal/config"
	"tabard/internal/password"
)

// provisioning returns the table with our own schema that the configuration
// declares, and its database: the one called name, or the first one.
func provisioning(cfg *config.Config, name string) (config.Table, provision.Source, error) {
	for _, t := range cfg.Tables {
		if name != "" && t.Name != name {
			continue
		}
		src, own, err := database(t)
		switch {
		case err != nil && (name != "" || own):
			return t, src, exitf(exConfig, "%s: table %s: %w", t.Pos, t.Name, err)
		case own:
			return t, src, nil
		case name != "":
			return t, src, exitf(exUsage, "%s: table %s does not have Tabard's own schema: its rows are edited with its own tools", t.Pos, t.Name)
		}
	}
	if name != "" {
		return config.Table{}, provision.Source{}, exitf(exUsage, "the configuration has no table %q", name)
	}
	return config.Table{}, provision.Source{}, exitf(exConfig, "the configuration has no table with Tabard's own schema to edit, on SQLite or PostgreSQL")
}

// database returns the database of a table; own tells whether it has our schema.
func database(t config.Table) (src provision.Source, own bool, err error) {
	switch t.Kind {
	case "sqlite":
		src.Path, own, err = sqlite.Database(t.Source)
	case "postgres":
		src.Conninfo, own, err = postgres.Database(t.Source)
	}
	return src, own, err
}

// editor is a group of commands on the provisioning database.
type editor struct {
	g     *globals
	table string
}

func newEditor(g *globals, use, short string) (*editor, *cobra.Command) {
	e := &editor{g: g}
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.PersistentFlags().StringVar(&e.table, "table", "", "`table` of the configuration to edit (default the first one with Tabard's own schema)")
	return e, cmd
}

// with opens the database for f.
func (e *editor) with(ctx context.Context, f func(context.Context, *provision.DB) error) error {
	cfg, err := e.g.load()
	if err != nil {
		return err
	}
	return e.within(ctx, cfg, f)
}

// within is with, for who has read the configuration.
func (e *editor) within(ctx context.Context, cfg *config.Config, f func(context.Context, *provision.DB) error) error {
	_, src, err := provisioning(cfg, e.table)
	if err != nil {
		return err
	}
	return withDatabase(ctx, src, f)
}

func withDatabase(ctx context.Context, src provision.Source, f func(context.Context, *provision.DB) error) error {
	db, err := provision.Open(ctx, src)
	if err != nil {
		return withCode(exUnavailable, err)
	}
	defer func() { _ = db.Close() }()
	err = f(ctx, db)
	if provision.IsUnavailable(err) {
		return withCode(exTempFail, err)
	}
	return withCode(exDataErr, err)
}

// command makes a subcommand that edits with its arguments.
func (e *editor) command(use, short string, args cobra.PositionalArgs, f func(context.Context, *provision.DB, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		return e.with(context.Background(), func(ctx context.Context, db *provision.DB) error { return f(ctx, db, args) })
	}}
}

// lister makes the ls subcommand.
func lister[T any](e *editor, short string, head []string, list func(*provision.DB, context.Context) ([]T, error), row func(T) []string) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return e.with(context.Background(), func(ctx context.Context, db *provision.DB) error {
			all, err := list(db, ctx)
			if err != nil {
				return err
			}
			rows := make([][]string, 0, len(all))
			for _, v := range all {
				rows = append(rows, row(v))
			}
			if all == nil {
				all = []T{} // an empty list, not null
			}
			return e.g.printList(cmd, all, head, rows)
		})
	}}
}

func newUser(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "user", "Users: who logs in and who has a mailbox")
	cmd.AddCommand(e.userAdd(), e.userPasswd(),
		e.importer(provision.Users(), `A password is hashed, a hash ({SCHEME}... or $id$...) is stored as it is; with neither
the user receives mail and cannot log in. Enabled is yes or no. A user named by an
address may send as that address. --replace changes what the file has columns for.`),
		e.command("rm NAME", "Remove a user and what the user may send as", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveUser(ctx, a[0])
		}),
		e.command("enable NAME", "Let a user log in and receive mail again", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.EnableUser(ctx, a[0], true)
		}),
		e.command("disable NAME", "Refuse a user's logins and mail, keeping the row", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.EnableUser(ctx, a[0], false)
		}),
		lister(e, "List users", []string{"NAME", "UID", "GID", "HOME", "ENABLED", "LOGIN"}, (*provision.DB).ListUsers, func(u provision.User) []string {
			return []string{u.Name, orDash(u.UID), orDash(u.GID), dash(u.Home), yesNo(u.Enabled), yesNo(u.Login)}
		}))
	return cmd
}

func (e *editor) userAdd() *cobra.Command {
	var uid, gid int64
	var home string
	var random, noLogin bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user; the password is read from the terminal or standard input",
		Long: `Add adds a user who may log in and receive mail. NAME is what the user logs in as,
usually the mail address. A user named by an address may send as that address.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids := [2]*int64{}
			if cmd.Flags().Changed("uid") {
				ids = [2]*int64{&uid, &gid}
			}
			secret, err := newPassword(cmd, random, noLogin)
			if err != nil {
				return err
			}
			hash, err := hashOrNone(secret)
			if err != nil {
				return err
			}
			if err := e.with(context.Background(), func(ctx context.Context, db *provision.DB) error {
				return addUser(ctx, db, args[0], hash, ids[0], ids[1], home)
			}); err != nil {
				return err
			}
			if random {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "password: %s\n", secret)
			}
			return err
		},
	}
	cmd.Flags().Int64Var(&uid, "uid", 0, "deliver as this user `id` (default the server's own mail user)")
	cmd.Flags().Int64Var(&gid, "gid", 0, "deliver with this group `id`")
	cmd.MarkFlagsRequiredTogether("uid", "gid")
	cmd.Flags().StringVar(&home, "home", "", "home `directory`, for actions that use it")
	cmd.Flags().BoolVar(&random, "random", false, "make a random password and print it")
	cmd.Flags().BoolVar(&noLogin, "no-login", false, "add a mailbox without a password")
	cmd.MarkFlagsMutuallyExclusive("random", "no-login")
	return cmd
}

// addUser adds a user, who may send as the address that is the name.
func addUser(ctx context.Context, db *provision.DB, name, hash string, uid, gid *int64, home string) error {
	if err := db.AddUser(ctx, name, hash, uid, gid, home); err != nil {
		return err
	}
	if !strings.Contains(name, "@") {
		return nil
	}
	return db.AddSender(ctx, name, name)
}

func (e *editor) userPasswd() *cobra.Command {
	var random bool
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Set a user's password, read from the terminal or standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := newPassword(cmd, random, false)
			if err != nil {
				return err
			}
			hash, err := hashOrNone(secret)
			if err != nil {
				return err
			}
			if err := e.with(context.Background(), func(ctx context.Context, db *provision.DB) error {
				return db.SetPassword(ctx, args[0], hash)
			}); err != nil {
				return err
			}
			if random {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "password: %s\n", secret)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&random, "random", false, "make a random password and print it")
	return cmd
}

// newPassword makes, asks for or reads a password; empty with none.
func newPassword(cmd *cobra.Command, random, none bool) (string, error) {
	switch {
	case none:
		return "", nil
	case random:
		return rand.Text()[:20], nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return readSecret(cmd.InOrStdin())
	}
	var typed [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		_, _ = fmt.Fprint(cmd.ErrOrStderr(), prompt)
		line, err := term.ReadPassword(int(in.Fd()))
		_, _ = fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", exitf(exIOErr, "password: %w", err)
		}
		typed[i] = string(line)
	}
	if typed[0] != typed[1] {
		return "", exitf(exDataErr, "the passwords differ")
	}
	return checkSecret(typed[0])
}

// readSecret reads one line, so that a password is neither an argument that ps
// shows nor part of a shell's history.
func readSecret(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", exitf(exIOErr, "password: %w", err)
	}
	return checkSecret(strings.TrimRight(line, "\r\n"))
}

func checkSecret(s string) (string, error) {
	if s == "" {
		return "", exitf(exDataErr, "an empty password is not accepted (no password at all: --no-login)")
	}
	return s, nil
}

func hashOrNone(secret string) (string, error) {
	if secret == "" {
		return "", nil
	}
	return password.Hash(secret)
}

func newDomain(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "domain", "Domains that mail is accepted for")
	cmd.AddCommand(
		e.importer(provision.Domains(), `A name may be a wildcard.`),
		e.command("add NAME", "Add a domain", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.AddDomain(ctx, a[0])
		}),
		e.command("rm NAME", "Remove a domain", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveDomain(ctx, a[0])
		}),
		lister(e, "List domains", []string{"NAME"}, (*provision.DB).ListDomains, func(d string) []string { return []string{d} }))
	return cmd
}

func newAlias(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "alias", "Aliases: other names of users, lists and catch-alls")
	cmd.AddCommand(
		e.importer(provision.Aliases(), `An address with several targets has several lines, or a list in quotes as its target.
--replace replaces all targets of the addresses that the file has.`),
		e.command("add ADDRESS TARGET...", "Send mail for ADDRESS (user, user@domain, @domain) to the targets too", cobra.MinimumNArgs(2),
			func(ctx context.Context, db *provision.DB, a []string) error {
				for _, target := range a[1:] {
					if err := db.AddAlias(ctx, a[0], target); err != nil {
						return err
					}
				}
				return nil
			}),
		e.command("rm ADDRESS [TARGET]", "Remove one target of an alias, or all", cobra.RangeArgs(1, 2), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveAlias(ctx, a[0], second(a))
		}),
		lister(e, "List aliases", []string{"ADDRESS", "TARGET"}, (*provision.DB).ListAliases, func(a provision.AliasRow) []string {
			return []string{a.Address, a.Target}
		}))
	return cmd
}

func newSender(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "sender", "Addresses that users may send as")
	cmd.AddCommand(
		e.importer(provision.Senders(), `A user with several addresses has several lines. --replace replaces all addresses of
the users that the file has.`),
		e.command("add USER ADDRESS", "Let a user send as an address, or as any of @domain", cobra.ExactArgs(2), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.AddSender(ctx, a[0], a[1])
		}),
		e.command("rm USER [ADDRESS]", "Take one address from a user, or all", cobra.RangeArgs(1, 2), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveSender(ctx, a[0], second(a))
		}),
		lister(e, "List who may send as what", []string{"USER", "ADDRESS"}, (*provision.DB).ListSenders, func(s provision.SenderRow) []string {
			return []string{s.User, s.Address}
		}))
	return cmd
}

func newRelay(g *globals) *cobra.Command {
	e, cmd := newEditor(g, "relay", "Relay routes by destination or sender, and the logins for them")
	var r provision.RelayRow
	add := &cobra.Command{
		Use:   "add MATCH URL",
		Short: "Relay mail for MATCH (domain, *.domain, sender address or *) to a URL",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			if _, err := cfg.Dialect.ParseRelayURL(args[1]); err != nil {
				return exitf(exDataErr, "%w", err)
			}
			r.Match, r.URL = args[0], args[1]
			return e.within(context.Background(), cfg, func(ctx context.Context, db *provision.DB) error { return db.AddRelay(ctx, r) })
		},
	}
	add.Flags().Int64Var(&r.Priority, "priority", 0, "lower is tried first")
	add.Flags().Int64Var(&r.Weight, "weight", 1, "among equal priorities, higher is tried first")
	cmd.AddCommand(add,
		e.importer(provision.Relays(), `A match with several relays has several lines; a lower priority is tried first.
--replace replaces all relays of the matches that the file has.`),
		e.command("rm MATCH [URL]", "Remove one relay of a match, or all", cobra.RangeArgs(1, 2), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveRelay(ctx, a[0], second(a))
		}),
		lister(e, "List relays", []string{"MATCH", "URL", "PRIORITY", "WEIGHT"}, (*provision.DB).ListRelays, func(r provision.RelayRow) []string {
			return []string{r.Match, r.URL, strconv.FormatInt(r.Priority, 10), strconv.FormatInt(r.Weight, 10)}
		}),
		e.relayLogin())
	return cmd
}

func (e *editor) relayLogin() *cobra.Command {
	login := &cobra.Command{Use: "login", Short: "User names and passwords for relays, by label", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	login.AddCommand(
		e.importer(provision.RelayLogins(), `The password is stored as it is: the relay has to be told it.`),
		&cobra.Command{
			Use:   "set LABEL USERNAME",
			Short: "Set the login behind a label; the password is read from the terminal or standard input",
			Args:  cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				secret, err := newPassword(cmd, false, false)
				if err != nil {
					return err
				}
				return e.with(context.Background(), func(ctx context.Context, db *provision.DB) error {
					return db.SetRelayCredential(ctx, args[0], args[1], secret)
				})
			},
		},
		e.command("rm LABEL", "Remove a login", cobra.ExactArgs(1), func(ctx context.Context, db *provision.DB, a []string) error {
			return db.RemoveRelayCredential(ctx, a[0])
		}),
		lister(e, "List logins", []string{"LABEL", "USERNAME"}, (*provision.DB).ListRelayCredentials, func(c provision.RelayCredential) []string {
			return []string{c.Label, c.Username}
		}))
	return login
}

func second(args []string) string {
	if len(args) > 1 {
		return args[1]
	}
	return ""
}

func orDash(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
