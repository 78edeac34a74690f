package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/rpc"
	"tabard/queue"
)

// steering is a subcommand that does one thing to envelopes.
type steering struct {
	s      queue.Steer
	done   string // what is said of those that it was done to
	what   filterFlags
	all    bool
	json   bool
	totals steerTotals
}

// steerTotals is what became of all that was named.
type steerTotals struct {
	Changed int             `json:"changed"`
	Refused []queue.Refusal `json:"refused"`
	Missing []string        `json:"missing"` // ids that are not in the queue
	DryRun  bool            `json:"dry_run"`

	Chosen []queue.EnvelopeID `json:"envelopes,omitzero"` // of a dry run: what would be changed
}

const steerHelp = `Name envelopes, or messages for all of their envelopes, or give filters, or --all.

` + filterHelp + `

What arrives while the command runs is left alone. Work goes on in steps of 500
envelopes, each of which is carried out or not as a whole. What cannot be done is said
for each envelope; the exit code is 75 then if trying again may help or if envelopes were
named, and 65 if some that were named are not in the queue.`

func (g *globals) steerCommand(name, short, long string, st *steering, flags func(*cobra.Command)) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " [MESSAGE|ENVELOPE|all...]",
		Short: short,
		Long:  strings.TrimPrefix(long+"\n\n", "\n\n") + steerHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.runSteering(cmd, st, args)
		},
	}
	st.add(cmd)
	if flags != nil {
		flags(cmd)
	}
	return cmd
}

func (st *steering) add(cmd *cobra.Command) {
	st.what.add(cmd)
	cmd.Flags().BoolVar(&st.all, "all", false, "all envelopes; needed when nothing else chooses")
	cmd.Flags().BoolVar(&st.s.DryRun, "dry-run", false, "only print what would be touched")
}

func (g *globals) queueRetry() *cobra.Command {
	return g.steerCommand("retry", "Try envelopes now that no hold keeps back", "", &steering{s: queue.Steer{Op: queue.OpRetry}, done: "made due"}, nil)
}

func (g *globals) queueRemove() *cobra.Command {
	return g.steerCommand("rm", "Remove envelopes without a bounce", `Rm removes envelopes, and messages with their last one; nobody is told. An attempt that
is under way is not called back, but what comes of it changes nothing more here.`, &steering{s: queue.Steer{Op: queue.OpRemove}, done: "removed"}, nil)
}

func (g *globals) queueBounce() *cobra.Command {
	st := &steering{s: queue.Steer{Op: queue.OpBounce}, done: "bounced"}
	return g.steerCommand("bounce", "Give envelopes up now, and tell their senders", `Bounce fails envelopes at once: the sender gets the report that a failure for good brings,
with the reason. What has no sender, or one who does not want to be told, is left alone.`, st, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&st.s.Reason, "reason", "", "`text` for the sender")
	})
}

func (g *globals) queueRedirect() *cobra.Command {
	st := &steering{s: queue.Steer{Op: queue.OpRedirect}, done: "redirected"}
	return g.steerCommand("redirect", "Send envelopes to another recipient or by another action", `With --to the rules and aliases are asked for that recipient, as for mail from this
machine, and the envelopes give way to those that this makes. With --to-action an envelope
keeps its address and goes by another action; a local one only takes mail that was for a
local user. Both begin a new row of attempts at once; the message, and the time that is
left, stay.`, st, func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&st.s.To, "to", "", "the new recipient, an `address`")
		cmd.Flags().StringVar(&st.s.Action, "to-action", "", "the new `action`")
		cmd.MarkFlagsOneRequired("to", "to-action")
		cmd.MarkFlagsMutuallyExclusive("to", "to-action")
	})
}

// runSteering does what st says to all that is named.
func (g *globals) runSteering(cmd *cobra.Command, st *steering, args []string) error {
	f, err := st.what.filter(time.Now())
	if err != nil {
		return err
	}
	args = slices.DeleteFunc(args, func(a string) bool {
		st.all = st.all || a == "all"
		return a == "all"
	})
	switch {
	case st.all && len(args) > 0:
		return exitf(exUsage, "all, and ids: say one of both")
	case !st.all && len(args) == 0 && st.what.none(cmd):
		return exitf(exUsage, "say which: ids, filters or --all")
	}
	if err := checkIDs(args); err != nil {
		return err
	}
	return g.withQueue(func(ctx context.Context, q queue.Admin) error { return g.steer(ctx, cmd, q, st, f, args) })
}

func (g *globals) steer(ctx context.Context, cmd *cobra.Command, q queue.Admin, st *steering, f queue.Filter, ids []string) error {
	st.json = g.json
	st.totals = steerTotals{DryRun: st.s.DryRun, Refused: []queue.Refusal{}, Missing: []string{}}
	if st.s.DryRun {
		st.totals.Chosen = []queue.EnvelopeID{}
	}
	bar := newProgressLine(cmd.ErrOrStderr())
	err := st.run(ctx, cmd, q, f, ids, bar)
	bar.clear()
	return errors.Join(g.printSteered(cmd, st), filterError(err), st.failure(len(ids) > 0))
}

// run goes over the queue once, or over the ids in portions.
func (st *steering) run(ctx context.Context, cmd *cobra.Command, q queue.Admin, f queue.Filter, ids []string, bar *progressLine) error {
	if len(ids) == 0 {
		return st.pages(ctx, cmd, q, f, bar)
	}
	for part := range slices.Chunk(ids, queue.MaxFilterIDs) {
		missing, err := missingIDs(ctx, q, part)
		if err != nil {
			return err
		}
		st.totals.Missing = append(st.totals.Missing, missing...)
		f.IDs = part
		if err := st.pages(ctx, cmd, q, f, bar); err != nil {
			return err
		}
	}
	return nil
}

// missingIDs returns those ids that are not in the queue.
func missingIDs(ctx context.Context, q queue.Admin, ids []string) ([]string, error) {
	there := make(map[string]bool)
	err := eachListed(ctx, q, queue.Filter{IDs: ids}, 0, func(page []queue.Listed) error {
		for _, l := range page {
			there[l.Envelope.ID.String()], there[l.Envelope.ID.Message.String()] = true, true
		}
		return nil
	})
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return there[id] }), err
}

// pages does it page by page. What comes meanwhile is left alone: a redirection
// must not find what it made.
func (st *steering) pages(ctx context.Context, cmd *cobra.Command, q queue.Admin, f queue.Filter, bar *progressLine) error {
	t, err := q.Count(ctx, f, nil, 1)
	if err != nil {
		return err
	}
	f.Until = t.Until
	columns := &columnWriter{w: cmd.OutOrStdout()}
	if st.json { // the totals say it
		columns.w = io.Discard
	}
	s, seen := st.s, 0
	s.Filter = f
	return eachSteered(ctx, q, s, func(out queue.Steered) {
		st.totals.Changed += out.Count
		st.totals.Refused = append(st.totals.Refused, out.Refused...)
		var rows [][]string
		if len(out.Changed) > 0 && len(columns.widths) == 0 {
			rows = append(rows, queueHead())
		}
		for _, l := range out.Changed {
			rows = append(rows, queueRow(l, time.Now()))
			if st.json {
				st.totals.Chosen = append(st.totals.Chosen, l.Envelope.ID)
			}
		}
		columns.print(rows)
		seen += out.Count + len(out.Refused)
		bar.show(fmt.Sprintf("%s %d of %d envelopes", barOf(float64(seen)/float64(max(1, t.Envelopes))), seen, t.Envelopes))
	})
}

// eachSteered does one thing to all that a filter chooses, page by page. done, if there
// is one, is told of each.
func eachSteered(ctx context.Context, q queue.Admin, s queue.Steer, done func(queue.Steered)) error {
	for s.Limit = queuePage; ; {
		out, err := q.Steer(ctx, s)
		if err != nil {
			return err
		}
		if done != nil {
			done(out)
		}
		if s.After = out.Last; !out.More {
			return nil
		}
	}
}

// printSteered says what was done, and what was not.
func (g *globals) printSteered(cmd *cobra.Command, st *steering) error {
	t := &st.totals
	if g.json {
		return printJSON(cmd.OutOrStdout(), t)
	}
	printRefused(cmd.ErrOrStderr(), t.Refused)
	for _, id := range t.Missing {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: not in the queue\n", id)
	}
	would := ""
	if t.DryRun {
		would = "would be "
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d envelopes %s%s\n", t.Changed, would, st.done)
	return withCode(exIOErr, err)
}

// printRefused says for each reason how many it is about, and names some.
func printRefused(w io.Writer, refused []queue.Refusal) {
	const named = 5
	var order []string
	byReason := make(map[string][]string)
	for _, r := range refused {
		if byReason[r.Why] == nil {
			order = append(order, r.Why)
		}
		byReason[r.Why] = append(byReason[r.Why], r.ID.String())
	}
	for _, why := range order {
		ids := byReason[why]
		more := ""
		if len(ids) > named {
			more = fmt.Sprintf(" and %d more", len(ids)-named)
		}
		_, _ = fmt.Fprintf(w, "%s%s: %s\n", strings.Join(ids[:min(named, len(ids))], ", "), more, why)
	}
}

// failure is the error of what was not done.
func (st *steering) failure(named bool) error {
	t := &st.totals
	if len(t.Missing) > 0 {
		return exitf(exDataErr, "%d of the envelopes that were named are not in the queue", len(t.Missing))
	}
	again := slices.ContainsFunc(t.Refused, func(r queue.Refusal) bool { return r.Busy })
	if named && len(t.Refused) > 0 || again {
		return exitf(exTempFail, "%d envelopes were left alone", len(t.Refused))
	}
	return nil
}

// filterError tells a wrong word from a server that is away.
func filterError(err error) error {
	if errors.Is(err, rpc.ErrInvalid) {
		return withCode(exUsage, err)
	}
	return withCode(exUnavailable, err)
}
