package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/address"
	"tabard/internal/control"
	"tabard/internal/rpc"
	"tabard/queue"
)

// dialControl reaches the running server.
func (g *globals) dialControl() (*control.Client, error) {
	path, err := g.controlPath()
	if err != nil {
		return nil, err
	}
	c, err := control.Dial(path)
	return c, withCode(exUnavailable, err)
}

func newQueue(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "queue", Short: "See and steer the mail that waits", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(g.queueList(), g.queueShow(), g.queueStats(), g.queueProfile(), g.queueHold(), g.queueRelease(),
		g.queueEdit("retry", "Try envelopes now that no hold keeps back", "made due", retry),
		g.queueEdit("rm", "Remove envelopes without a bounce", "removed", func(q queue.Admin, ctx context.Context, _ *cobra.Command, id queue.MessageID, n int) (int, error) {
			if id == 0 {
				return removeAll(ctx, q)
			}
			return q.Remove(ctx, id, n)
		}))
	return cmd
}

// withQueue talks to the running server's queue.
func (g *globals) withQueue(f func(context.Context, queue.Admin) error) error {
	c, err := g.dialControl()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	conn, err := c.Connect(ctx, procQueue)
	if err != nil {
		return withCode(exUnavailable, err)
	}
	client := rpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	return withCode(exUnavailable, f(ctx, queue.NewRemoteAdmin(client)))
}

// queuePage is how many envelopes are asked for at a time.
const queuePage = 500

func (g *globals) queueList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the envelopes that wait",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				all, err := listAll(ctx, q)
				if err != nil {
					return err
				}
				rows := make([][]string, 0, len(all))
				for _, l := range all {
					rows = append(rows, queueRow(l, time.Now()))
				}
				return g.printList(cmd, all, []string{"ENVELOPE", "AGE", "SIZE", "FROM", "TO", "ACTION", "TRIES", "NEXT", "LAST ERROR"}, rows)
			})
		},
	}
}

// listAll lists the whole queue. A page may be shorter than asked for, because
// it is cut to what one answer carries; the last one is empty.
func listAll(ctx context.Context, q queue.Admin) ([]queue.Listed, error) {
	all := []queue.Listed{}
	for after := (queue.EnvelopeID{}); ; {
		page, err := q.List(ctx, after, queuePage)
		if err != nil || len(page) == 0 {
			return all, err
		}
		all = append(all, page...)
		after = page[len(page)-1].Envelope.ID
	}
}

// retry makes envelopes due. That a hold keeps back what was named is an error,
// that it keeps back some of all is not: both are said.
func retry(q queue.Admin, ctx context.Context, cmd *cobra.Command, id queue.MessageID, n int) (int, error) {
	done, err := q.Retry(ctx, id, n)
	if err != nil || done.Held == 0 {
		return done.Due, err
	}
	if id != 0 && done.Due == 0 {
		return 0, exitf(exDataErr, "%s is held: see `tabard queue hold`", named(id, n))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d envelopes stay held: see `tabard queue hold`\n", done.Held)
	return done.Due, err
}

// named is what the argument for a message, or for an envelope, was.
func named(id queue.MessageID, n int) string {
	if n < 0 {
		return id.String()
	}
	return queue.EnvelopeID{Message: id, N: n}.String()
}

// removeAll removes what is in the queue now, message by message.
func removeAll(ctx context.Context, q queue.Admin) (int, error) {
	all, err := listAll(ctx, q)
	if err != nil {
		return 0, err
	}
	total := 0
	for _, l := range all {
		n, err := q.Remove(ctx, l.Envelope.ID.Message, l.Envelope.ID.N)
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

func queueRow(l queue.Listed, now time.Time) []string {
	e := l.Envelope
	next := "due"
	switch {
	case l.InFlight:
		next = "in flight"
	case e.Held:
		next = "held"
	case e.Next.After(now):
		next = e.Next.Sub(now).Round(time.Second).String()
	}
	last := dash(e.LastError)
	if e.Held {
		last = e.HeldFor
	}
	return []string{
		e.ID.String(), now.Sub(e.Created).Round(time.Second).String(), strconv.FormatInt(l.Size, 10), "<" + l.Sender + ">", "<" + e.Address + ">",
		dash(e.Action), strconv.Itoa(e.Attempts), next, address.OneLine(last, 200),
	}
}

func (g *globals) queueShow() *cobra.Command {
	var most int
	cmd := &cobra.Command{
		Use:   "show MESSAGE",
		Short: "Show a message, its envelopes and its text",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, _, err := queue.ParseID(args[0])
			if err != nil {
				return withCode(exUsage, err)
			}
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				s, err := q.Show(ctx, id, most)
				if err != nil {
					return exitf(exDataErr, "message %s: %w", id, err)
				}
				return g.printShown(cmd, s)
			})
		},
	}
	cmd.Flags().IntVar(&most, "max", 64<<10, "show at most so many `bytes` of the text")
	return cmd
}

func (g *globals) printShown(cmd *cobra.Command, s queue.Shown) error {
	if g.json {
		return printJSON(cmd.OutOrStdout(), s)
	}
	out := cmd.OutOrStdout()
	m := s.Message
	_, _ = fmt.Fprintf(out, "message: %s\nfrom: <%s>\nsize: %d\nreceived: %s\nclient: %s [%s] user=%s session=%s\n",
		m.ID, m.Sender, m.Size, m.Created.Format(time.RFC3339), dash(m.Helo), dash(m.Remote), dash(m.User), dash(m.Session))
	for _, e := range s.Envelopes {
		_, _ = fmt.Fprintf(out, "envelope: %s to=<%s> rcpt=<%s> action=%s tries=%d next=%s expires=%s held=%s error=%s\n", e.ID, e.Address, e.Recipient,
			dash(e.Action), e.Attempts, e.Next.Format(time.RFC3339), e.Expires.Format(time.RFC3339), dash(address.OneLine(e.HeldFor, 300)), address.OneLine(dash(e.LastError), 500))
	}
	_, err := fmt.Fprintf(out, "\n%s", s.Body)
	if s.Truncated {
		_, err = fmt.Fprintln(out, "\n[the rest is not shown; see --max]")
	}
	return err
}

func (g *globals) queueStats() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show counters since the queue's start",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				st, err := q.Stats(ctx)
				if err != nil {
					return err
				}
				n := func(v int64) string { return strconv.FormatInt(v, 10) }
				return g.printList(cmd, st, []string{"MESSAGES", "ENVELOPES", "IN FLIGHT", "ENQUEUED", "DELIVERED", "DEFERRED", "FAILED", "EXPIRED", "REMOVED", "BOUNCED"},
					[][]string{{n(st.Messages), n(st.Envelopes), n(st.InFlight), n(st.Enqueued), n(st.Delivered), n(st.Deferred), n(st.Failed), n(st.Expired), n(st.Removed), n(st.Bounced)}})
			})
		},
	}
}

// queueEdit makes a subcommand that changes one envelope, all envelopes of a
// message, or all.
func (g *globals) queueEdit(name, short, done string, edit func(queue.Admin, context.Context, *cobra.Command, queue.MessageID, int) (int, error)) *cobra.Command {
	return &cobra.Command{
		Use:   name + " MESSAGE|ENVELOPE|all...",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				total := 0
				for _, a := range args {
					id, n := queue.MessageID(0), -1
					if a != "all" {
						var err error
						if id, n, err = queue.ParseID(a); err != nil {
							return withCode(exUsage, err)
						}
					}
					count, err := edit(q, ctx, cmd, id, n)
					if err != nil {
						return err
					}
					if count == 0 && a != "all" {
						return exitf(exDataErr, "%s: not in the queue", a)
					}
					total += count
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d envelopes %s\n", total, done)
				return err
			})
		},
	}
}
