package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	queuesqlite "tabard/queue/sqlite"
)

func (g *globals) queueRepair() *cobra.Command {
	return &cobra.Command{
		Use:   "repair",
		Short: "Save what can be read of a damaged queue, with the server stopped",
		Long: `Repair is for a queue whose database is damaged, which the server keeps for reading
only. The server must be stopped. What can be read is saved into a new database, which
takes the damaged one's place; that is kept under another name, and nothing of it is
removed. What was saved is printed, and what was not. A queue that is sound is left as
it is.

Run it as the user whom the queue's files belong to, or as root: the new file is given
to the owner of its directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := g.load()
			if err != nil {
				return err
			}
			path := newQueueConfig(cfg, "").Path
			// As long as it takes: there may be a million messages to save.
			r, err := queuesqlite.Repair(context.Background(), path)
			if err != nil {
				return withCode(exUnavailable, err)
			}
			return errors.Join(g.printRepair(cmd, path, r), withCode(exNoPerm, ownAsDirectory(path)))
		},
	}
}

func (g *globals) printRepair(cmd *cobra.Command, path string, r queuesqlite.Report) error {
	out := cmd.OutOrStdout()
	if g.json {
		return printJSON(out, r)
	}
	if r.Sound {
		_, err := fmt.Fprintf(out, "%s is sound; nothing was changed\n", path)
		return err
	}
	lines := []string{fmt.Sprintf("saved: %d messages, %d envelopes, %d holds", r.Messages, r.Envelopes, r.Holds)}
	for _, u := range r.Unread {
		lines = append(lines, "not saved: "+u)
	}
	for _, l := range r.Lost {
		lines = append(lines, "not saved: "+l)
	}
	if r.LostMore > 0 {
		lines = append(lines, fmt.Sprintf("not saved: %d more of these", r.LostMore))
	}
	for _, id := range r.Moved {
		lines = append(lines, fmt.Sprintf("not saved: message %s; its text is in %s", id, r.Bodies))
	}
	if r.Damaged != "" {
		lines = append(lines, "the damaged database is kept as "+r.Damaged)
	}
	lines = append(lines, "the queue can be started")
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}
