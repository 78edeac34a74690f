package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/config"
	"tabard/lookup"
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
	log := slog.New(slog.DiscardHandler)
	svc, err := openLookup(ctx, cfg, serverName(cfg, path), dnsConfig{cfg.Resolvers}, openTable(cfg, log), log)
	if err != nil {
		return withCode(exConfig, err)
	}
	return errors.Join(f(ctx, svc), svc.Close())
}
