package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tabard/queue"
)

// holdFlags are the ways to say what is held.
type holdFlags struct{ destination, sender, rule []string }

func (f *holdFlags) none() bool { return len(f.destination)+len(f.sender)+len(f.rule) == 0 }

// each calls do for everything that was named.
func (f *holdFlags) each(do func(queue.HoldKind, string) error) error {
	if f.none() {
		return exitf(exUsage, "say what: --destination, --sender or --rule")
	}
	type named struct {
		kind  queue.HoldKind
		value string
	}
	var all []named
	for _, v := range f.destination {
		all = append(all, named{queue.HoldDestination, v})
	}
	for _, v := range f.sender {
		all = append(all, named{queue.HoldSender, v})
	}
	for _, v := range f.rule {
		all = append(all, named{queue.HoldRule, v})
	}
	return eachOf(all, func(n named) error { return do(n.kind, n.value) })
}

const holdHelp = `--destination, --sender and --rule alone are about mail that is there and that comes, and
outlive restarts. With ids, with other filters, or with --present it is about envelopes
that are in the queue now, and no other.`

// holding is hold or release: of mail that comes, or of envelopes that are there.
type holding struct {
	steering
	rule    []string
	present bool
}

func (h *holding) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&h.rule, "rule", nil, "mail of an `action`, also what comes")
	flags.BoolVar(&h.present, "present", false, "only envelopes that are in the queue now")
}

// standing returns what is about mail that comes, or false if envelopes are meant.
func (h *holding) standing(cmd *cobra.Command, args []string) (holdFlags, bool, error) {
	f := holdFlags{destination: h.what.f.Destination, sender: h.what.f.Sender, rule: h.rule}
	others := len(args) > 0 || h.all || h.s.DryRun || !h.what.none(cmd, "destination", "sender")
	switch {
	case !others && !h.present:
		return f, true, nil
	case len(h.rule) > 0:
		return f, false, exitf(exUsage, "--rule is about mail that comes, too; among the envelopes that are there --action chooses")
	case !f.none() && !h.present:
		return f, false, exitf(exUsage, "--destination and --sender alone are about mail that comes, too; with others add --present")
	}
	return f, false, nil
}

func (g *globals) queueHold() *cobra.Command {
	h := &holding{steering: steering{s: queue.Steer{Op: queue.OpHold}, done: "held"}}
	cmd := g.steerCommand("hold", "Keep mail back until it is released, or list what is held", `Hold keeps mail back until it is released; lists say why. What is held does not expire.
Without any word it lists the holds, and how many envelopes are kept back by each.

`+holdHelp, &h.steering, h.addFlags)
	cmd.Flags().StringVar(&h.s.Reason, "reason", "", "`text` for whoever wonders")
	cmd.RunE = h.runner(g, func(ctx context.Context, cmd *cobra.Command, q queue.Admin, what holdFlags) error {
		if what.none() {
			if h.s.Reason != "" {
				return exitf(exUsage, "say what: --destination, --sender, --rule, filters or ids")
			}
			return g.printHolds(ctx, cmd, q)
		}
		return what.each(func(kind queue.HoldKind, value string) error { return beginHold(ctx, cmd, q, kind, value, h.s.Reason) })
	})
	return cmd
}

// runner makes what a command does: f with standing holds, or steering with envelopes.
func (h *holding) runner(g *globals, f func(context.Context, *cobra.Command, queue.Admin, holdFlags) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		what, standing, err := h.standing(cmd, args)
		switch {
		case err != nil:
			return err
		case !standing:
			return g.runSteering(cmd, &h.steering, args)
		}
		return g.withQueue(func(ctx context.Context, q queue.Admin) error { return f(ctx, cmd, q, what) })
	}
}

func (g *globals) printHolds(ctx context.Context, cmd *cobra.Command, q queue.Admin) error {
	list, err := q.Holds(ctx)
	if err != nil {
		return err
	}
	rows := make([][]string, len(list))
	for i, h := range list {
		rows[i] = []string{string(h.Kind), h.Value, h.Created.Format(time.RFC3339), strconv.FormatInt(h.Held, 10), dash(h.Reason)}
	}
	return g.printList(cmd, list, []string{"KIND", "VALUE", "SINCE", "HELD", "REASON"}, rows)
}

func (g *globals) queueRelease() *cobra.Command {
	h := &holding{steering: steering{s: queue.Steer{Op: queue.OpRelease}, done: "due"}}
	cmd := g.steerCommand("release", "End holds; what they kept back is due at once", `Release ends holds by the words by which they were begun; what they kept back is due at
once. Of envelopes it releases those that were held one by one; --all means all of these.

`+holdHelp, &h.steering, h.addFlags)
	cmd.RunE = h.runner(g, func(ctx context.Context, cmd *cobra.Command, q queue.Admin, what holdFlags) error {
		return what.each(func(kind queue.HoldKind, value string) error { return release(ctx, cmd, q, kind, value) })
	})
	return cmd
}
