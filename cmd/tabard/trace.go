package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/address"
	"tabard/internal/rpc"
	"tabard/queue"
)

func newTrace(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "trace MESSAGE",
		Short: "Tell how long a message was in each stage of its way",
		Long: `Tell how long a message was in each stage of its way, and what became of each attempt.

The server remembers the last 10,000 messages that came or were tried since its queue
process started. Stages are explained in docs/profile.md.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, _, err := queue.ParseID(args[0])
			if err != nil {
				return withCode(exUsage, err)
			}
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				t, err := q.Trace(ctx, id)
				if errors.Is(err, rpc.ErrNotFound) {
					return exitf(exDataErr, "%s: not among the messages that are remembered", id)
				}
				if err != nil {
					return err
				}
				if g.json {
					return printJSON(cmd.OutOrStdout(), t)
				}
				return printTrace(cmd.OutOrStdout(), t)
			})
		},
	}
}

func printTrace(w io.Writer, t queue.Trace) error {
	when := "before the queue's start"
	if !t.Accepted.IsZero() {
		when = t.Accepted.Format(time.RFC3339Nano)
	}
	if _, err := fmt.Fprintf(w, "message: %s\naccepted: %s\n", t.Message, when); err != nil {
		return err
	}
	if err := printPassed(w, t.Inbound); err != nil {
		return err
	}
	if t.Missing > 0 {
		if _, err := fmt.Fprintf(w, "\n%d attempts before are remembered no more\n", t.Missing); err != nil {
			return err
		}
	}
	for _, a := range t.Attempts {
		if _, err := fmt.Fprintf(w, "\nattempt: %s at %s result=%s relay=%s stat=%s\n", a.Envelope, a.Taken.Format(time.RFC3339Nano),
			a.Outcome, dash(address.OneLine(a.Remote, 300)), dash(address.OneLine(a.Text, 500))); err != nil {
			return err
		}
		if err := printPassed(w, a.Passed); err != nil {
			return err
		}
	}
	return nil
}

func printPassed(w io.Writer, passed queue.Passed) error {
	for _, p := range passed {
		if _, err := fmt.Fprintf(w, "  %-14s %s\n", p.Stage, spanText(p.Took)); err != nil {
			return err
		}
	}
	return nil
}

// spanText prints a time with three digits that count.
func spanText(d time.Duration) string {
	unit := time.Nanosecond
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

func (g *globals) queueProfile() *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "Show how long messages are in each stage of their way",
		Long: `Show how long messages are in each stage of their way: percentiles since the start of
the queue process or, with --every, of each span of time, until interrupted.

Stages are explained in docs/profile.md.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 0 {
				return exitf(exUsage, "--every %s: want a time", every)
			}
			now, err := g.profile()
			if err != nil || every == 0 {
				if err == nil {
					err = g.printProfile(cmd, now.Since, now.Stages)
				}
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return g.followProfile(ctx, cmd, now, every)
		},
	}
	cmd.Flags().DurationVar(&every, "every", 0, "print what came in each span of this length")
	return cmd
}

func (g *globals) profile() (p queue.Profile, err error) {
	err = g.withQueue(func(ctx context.Context, q queue.Admin) error {
		p, err = q.Profile(ctx)
		return err
	})
	return p, err
}

// followProfile prints the differences. A queue that was started anew has counted
// from nothing.
func (g *globals) followProfile(ctx context.Context, cmd *cobra.Command, was queue.Profile, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		since := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := g.profile()
		if err != nil {
			return err
		}
		stages := now.Stages
		if now.Since.Equal(was.Since) && len(was.Stages) == len(stages) {
			stages = make([]queue.StageCount, len(now.Stages))
			for i := range stages {
				stages[i] = now.Stages[i].Minus(was.Stages[i])
			}
		}
		if err := g.printProfile(cmd, since, stages); err != nil {
			return err
		}
		was = now
	}
}

// stageLine is a line of `tabard queue profile`; times are seconds.
type stageLine struct {
	Stage string  `json:"stage"`
	Count uint64  `json:"count"`
	P50   float64 `json:"p50_s"`
	P90   float64 `json:"p90_s"`
	P99   float64 `json:"p99_s"`
	Max   float64 `json:"max_s"`
}

func (g *globals) printProfile(cmd *cobra.Command, since time.Time, stages []queue.StageCount) error {
	lines := make([]stageLine, len(stages))
	rows := make([][]string, len(stages))
	for i, s := range stages {
		p := func(n float64) time.Duration { return s.Percentile(n) }
		lines[i] = stageLine{Stage: s.Stage, Count: s.Count(), P50: p(50).Seconds(), P90: p(90).Seconds(), P99: p(99).Seconds(), Max: p(100).Seconds()}
		rows[i] = []string{s.Stage, strconv.FormatUint(lines[i].Count, 10), spanText(p(50)), spanText(p(90)), spanText(p(99)), spanText(p(100))}
	}
	if !g.json {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "since %s\n", since.Format(time.RFC3339)); err != nil {
			return err
		}
	}
	return g.printList(cmd, lines, []string{"STAGE", "COUNT", "P50", "P90", "P99", "MAX"}, rows)
}
