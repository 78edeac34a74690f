package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tabard/internal/config"
	"tabard/internal/control"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/table"
)

// lookupFlags are how a table is asked.
type lookupFlags struct{ direct, fresh, watch bool }

func newLookup(g *globals) *cobra.Command {
	var f lookupFlags
	cmd := &cobra.Command{
		Use:   "lookup TABLE SERVICE [KEY]",
		Short: "Ask a table as the server does",
		Long: `Lookup prints the answer of a table to one question, or without a key what it lists.
A running server is asked, which may know the answer already; without one, or with
--direct, the table is opened here. On standard error it says where the answer came
from (the table's source, the cache, or the cache because the source is down: "stale")
and how long it took. Passwords and private keys are not shown.

For service auth the key is a user name and the password is read from the terminal or
standard input; for credentials with --password, too. The answer is whether it is right.

With --watch it goes on, and prints each change that the source tells, until it is
interrupted; if there is a key, its answer again whenever a change concerns it.

The exit code is 0 when there is an answer, 1 when there is none, 75 when the table
could not be asked.

Services: ` + serviceList() + `.`,
		Args: cobra.RangeArgs(2, 3),
	}
	password := cmd.Flags().Bool("password", false, "for credentials: judge a password instead of showing the row")
	cmd.Flags().BoolVar(&f.direct, "direct", false, "open the table here, even if a server runs")
	cmd.Flags().BoolVar(&f.fresh, "fresh", false, "put the question to the table's source, whatever the server knows")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "go on and print the changes that the source tells")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := lookup.QueryRequest{Table: config.TableRef(strings.Trim(args[0], "<>")), Fresh: f.fresh}
		var err error
		if r.Service, err = table.ParseService(args[1]); err != nil {
			return exitf(exUsage, "%w; want one of %s", err, serviceList())
		}
		if len(args) == 3 {
			r.Key = args[2]
		}
		if r.Service == table.Auth || *password {
			if r.Password, err = askPassword(cmd); err != nil {
				return err
			}
		}
		cfg, err := g.load()
		if err != nil {
			return err
		}
		return g.withAdmin(cfg, f.direct, func(ctx context.Context, a lookup.Admin) error {
			if f.watch {
				return g.lookupWatch(ctx, cmd, a, r)
			}
			ctx, cancel := context.WithTimeout(ctx, toolTimeout)
			defer cancel()
			return g.lookup(ctx, cmd, a, r)
		})
	}
	return cmd
}

// askPassword reads a password once.
func askPassword(cmd *cobra.Command) (string, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return readSecret(cmd.InOrStdin())
	}
	_, _ = fmt.Fprint(cmd.ErrOrStderr(), "Password: ")
	line, err := term.ReadPassword(int(in.Fd()))
	_, _ = fmt.Fprintln(cmd.ErrOrStderr())
	return string(line), withCode(exIOErr, err)
}

// lookupOf reaches the lookup process of a running server, until end is called.
func lookupOf(ctx context.Context, c *control.Client) (a lookup.Admin, end func(), err error) {
	conn, err := c.Connect(ctx, procLookup)
	if err != nil {
		return nil, nil, err
	}
	client := rpc.NewClient(conn)
	return lookup.NewAdmin(client), func() { _ = client.Close() }, nil
}

// withAdmin talks to the running server's lookup process, or, when there is none
// or directly is said, to one made here of the configuration.
func (g *globals) withAdmin(cfg *config.Config, directly bool, f func(context.Context, lookup.Admin) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if !directly {
		c, err := control.Dial(controlSocket(cfg))
		switch {
		case err == nil:
			a, end, err := lookupOf(ctx, c)
			if err != nil {
				return withCode(exUnavailable, err)
			}
			defer end()
			return f(ctx, a)
		case !errors.Is(err, control.ErrNotRunning) && !errors.Is(err, os.ErrPermission):
			return withCode(exUnavailable, err)
		}
	}
	return withService(cfg, g.path(), func(_ context.Context, svc *lookup.Service) error { return f(ctx, svc) })
}

func (g *globals) lookup(ctx context.Context, cmd *cobra.Command, a lookup.Admin, r lookup.QueryRequest) error {
	answer, err := a.Query(ctx, r)
	if err != nil {
		return exitf(exTempFail, "%w", err)
	}
	out := cmd.OutOrStdout()
	if g.json {
		if err := printJSON(out, answer); err != nil {
			return err
		}
	} else if err := printAnswer(out, answer); err != nil {
		return err
	}
	if !g.json {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "from %s in %s\n", answer.From, answer.Took.Round(time.Microsecond))
	}
	if !answer.Found {
		return errors.New("not found")
	}
	return nil
}

func printAnswer(w io.Writer, a lookup.Answer) error {
	if a.Found && len(a.Rows) == 0 {
		_, err := fmt.Fprintln(w, "found")
		return err
	}
	for _, row := range a.Rows {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	if a.Cut {
		_, err := fmt.Fprintln(w, "... and more")
		return err
	}
	return nil
}

// lookupWatch prints changes as they are told, until ctx ends.
func (g *globals) lookupWatch(ctx context.Context, cmd *cobra.Command, a lookup.Admin, r lookup.QueryRequest) error {
	last, err := a.Changes(ctx, lookup.ChangesRequest{Table: r.Table, Now: true})
	if err != nil {
		return exitf(exUnavailable, "%w", err)
	}
	after := last[0].Seq
	if err := g.lookupAgain(ctx, cmd, a, r); err != nil {
		return err
	}
	for {
		changes, err := a.Changes(ctx, lookup.ChangesRequest{Table: r.Table, After: after})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return exitf(exUnavailable, "%w", err)
		}
		concerned := false
		for _, ch := range changes {
			after = ch.Seq
			concerned = concerned || concerns(ch, r)
			if err := g.printChange(cmd.OutOrStdout(), ch); err != nil {
				return err
			}
		}
		if concerned {
			if err := g.lookupAgain(ctx, cmd, a, r); err != nil {
				return err
			}
		}
	}
}

// lookupAgain prints the answer of a watched key as it is now. That there is none,
// or that the table is down, is for the person who watches to see.
func (g *globals) lookupAgain(ctx context.Context, cmd *cobra.Command, a lookup.Admin, r lookup.QueryRequest) error {
	if r.Key == "" {
		return nil
	}
	err := g.lookup(ctx, cmd, a, r)
	if err != nil && ctx.Err() == nil {
		_, err = fmt.Fprintln(cmd.ErrOrStderr(), err)
	}
	return err
}

// concerns reports whether a change may have changed the answer.
func concerns(ch lookup.Change, r lookup.QueryRequest) bool {
	return ch.Service == "" || ch.Service == r.Service.String() &&
		(ch.Key == "" || table.Walked(r.Service) || strings.EqualFold(ch.Key, r.Key))
}

func (g *globals) printChange(w io.Writer, ch lookup.Change) error {
	if g.json {
		return printJSON(w, ch)
	}
	what := "everything"
	switch {
	case ch.Key != "":
		what = ch.Service + " " + ch.Key
	case ch.Service != "":
		what = "every " + ch.Service
	}
	_, err := fmt.Fprintf(w, "%s changed: %s\n", ch.At.Format("15:04:05.000"), what)
	return err
}

func serviceList() string {
	var names []string
	for _, s := range table.Services() {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}
