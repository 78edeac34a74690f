package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tabard/backends/provision"
	"tabard/internal/config"
	"tabard/lookup"
	"tabard/queue"
	queuesqlite "tabard/queue/sqlite"
	"tabard/table"
)

// toolTimeout bounds what a command line tool waits for tables and servers.
const toolTimeout = time.Minute

func newCheck(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, every table, certificate and key",
		Long: `Check reads the configuration, asks every table for what it is used for, and looks at
every certificate, key that signs mail, authority, relay URL and tls-policy row that can
be listed, and for the users that the processes become when root starts the server. Each
problem is one line with its place. It tells of damage to the queue that a start has
found.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			if err := refuse(cfg); err != nil {
				return err
			}
			if _, _, err := eventTable(cfg); err != nil {
				return err
			}
			return withService(cfg, g.path(), func(ctx context.Context, svc *lookup.Service) error {
				users := userProblems(cfg, g.path(), os.Getuid() == 0)
				return g.report(cmd, slices.Concat(users, svc.Check(ctx), rowProblems(ctx, cfg, time.Now()), queueProblems(cfg), queueDamage(cfg, g.source().String())))
			})
		},
	}
}

// queueDamage tells of damage that is known.
func queueDamage(cfg *config.Config, source string) []lookup.Problem {
	err := queuesqlite.Condition(newQueueConfig(cfg, "").Path)
	switch {
	case errors.Is(err, queue.ErrCorrupt):
		return []lookup.Problem{{Pos: cfg.Queue.Pos, Cause: fmt.Sprintf("%v; %s", err, toRepair(source))}}
	case err != nil: // not ours to look at, perhaps
		return []lookup.Problem{{Pos: cfg.Queue.Pos, Cause: fmt.Sprintf("queue: its state is not known: %v", err), Warning: true}}
	}
	return nil
}

// endsSoon is when check warns of a certificate that is about to end.
const endsSoon = 14 // days

// rowProblems looks at every certificate and every dkim key of our own schema, asked
// for or not. A table that cannot be opened is a problem that others have told of.
func rowProblems(ctx context.Context, cfg *config.Config, now time.Time) []lookup.Problem {
	var found []lookup.Problem
	serve, sign, secure := certTables(cfg), dkimTables(cfg), policyTables(cfg)
	for _, t := range cfg.Tables {
		src, own, err := database(t)
		if err != nil || !own || !serve[t.Name] && !sign[t.Name] && !secure[t.Name] {
			continue
		}
		db, err := provision.Open(ctx, src)
		if err != nil {
			continue
		}
		if serve[t.Name] {
			found = append(found, certProblems(ctx, cfg, t, db, now)...)
		}
		if sign[t.Name] {
			found = append(found, dkimProblems(ctx, cfg, t, db)...)
		}
		if secure[t.Name] {
			found = append(found, policyProblems(ctx, t, db)...)
		}
		_ = db.Close() // nothing was written
	}
	return found
}

func certProblems(ctx context.Context, cfg *config.Config, t config.Table, db *provision.DB, now time.Time) []lookup.Problem {
	all, err := db.ListCertificates(ctx, lookup.Servable(cfg.Custody))
	if err != nil {
		return []lookup.Problem{{Pos: t.Pos, Table: t.Name, Service: "cert", Cause: err.Error()}}
	}
	var found []lookup.Problem
	for _, line := range certRows(cfg, t.Name, all, now) {
		served := line.State == inUse
		if cause := line.State; !served || line.Days < endsSoon {
			if served {
				cause = fmt.Sprintf("ends in %d days", line.Days)
			}
			found = append(found, lookup.Problem{Pos: t.Pos, Table: t.Name, Service: "cert", Cause: fmt.Sprintf("%s, id %d: %s", line.Name, line.ID, cause), Warning: true})
		}
	}
	return found
}

// dkimProblems are no mere warnings: mail of a domain waits while one of its rows is
// broken.
func dkimProblems(ctx context.Context, cfg *config.Config, t config.Table, db *provision.DB) []lookup.Problem {
	all, err := db.ListDKIMKeys(ctx, lookup.Signable(cfg.Custody))
	if err != nil {
		return []lookup.Problem{{Pos: t.Pos, Table: t.Name, Service: "dkim", Cause: err.Error()}}
	}
	var found []lookup.Problem
	for _, k := range all {
		if state := describeDKIM(cfg, t.Name, k).State; state != inUse {
			found = append(found, lookup.Problem{Pos: t.Pos, Table: t.Name, Service: "dkim", Cause: fmt.Sprintf("%s, selector %s: %s", k.Domain, k.Selector, state)})
		}
	}
	return found
}

// policyTables are those that say how much TLS mail has to have.
func policyTables(cfg *config.Config) map[string]bool {
	used := make(map[string]bool)
	for _, a := range cfg.Actions {
		used[string(a.TLSPolicy)] = true
	}
	return used
}

func policyProblems(ctx context.Context, t config.Table, db *provision.DB) []lookup.Problem {
	all, err := db.ListPolicies(ctx)
	if err != nil {
		return []lookup.Problem{{Pos: t.Pos, Table: t.Name, Service: table.TLSPolicy.String(), Cause: err.Error()}}
	}
	var found []lookup.Problem
	for _, row := range all {
		p, err := table.ParseTLSPolicy(table.Row{row.Policy})
		switch {
		case err != nil:
			found = append(found, lookup.Problem{Pos: t.Pos, Table: t.Name, Service: table.TLSPolicy.String(), Cause: fmt.Sprintf("%.300q: %v", row.Domain, err)})
		case !p.Level.Supported():
			found = append(found, lookup.UnsupportedPolicy(t.Pos, t.Name, row.Domain, p.Level))
		}
	}
	return found
}

// userProblems names the processes whose users do not exist. It keeps a server that
// root starts from starting, and is of no consequence for others.
func userProblems(cfg *config.Config, path string, root bool) []lookup.Problem {
	var found []lookup.Problem
	for _, name := range slices.Sorted(maps.Keys(defaultUsers())) {
		if name == procMetrics && cfg.Metrics == "" {
			continue
		}
		if _, err := identityOf(cfg, name); err != nil {
			found = append(found, lookup.Problem{Pos: processPos(cfg, name, path), Cause: err.Error()})
		}
	}
	if root || len(found) == 0 {
		return found
	}
	cause := fmt.Sprintf("started by root, the server would not start: %s", found[0].Cause)
	if more := len(found) - 1; more > 0 {
		cause += fmt.Sprintf(" (and %d more users are missing)", more)
	}
	return []lookup.Problem{{Pos: found[0].Pos, Cause: cause, Warning: true}}
}

// processPos is where the configuration speaks of a process, or its beginning.
func processPos(cfg *config.Config, name, path string) config.Pos {
	for _, p := range cfg.Processes {
		if p.Name == name {
			return p.Pos
		}
	}
	return config.Pos{File: path, Line: 1, Col: 1}
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
		return exitf(exConfig, "%s: problems: %d", g.path(), faults)
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
	log := slog.New(slog.DiscardHandler)
	svc, err := openLookup(ctx, cfg, serverName(cfg, path), dnsConfig{cfg.Resolvers}, openTable(cfg, log), log)
	if err != nil {
		return withCode(exConfig, err)
	}
	return errors.Join(f(ctx, svc), svc.Close())
}
