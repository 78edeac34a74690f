package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

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
	cmd.AddCommand(g.queueList(), g.queueShow(), g.queueStats(), g.queueProfile(), g.queueHold(), g.queueRelease(), g.queueEncrypt(), g.queueRepair(),
		g.queueRetry(), g.queueRemove(), g.queueRedirect(), g.queueBounce(), g.queueExport(), g.queueImport())
	return cmd
}

// withQueue talks to the running server's queue.
func (g *globals) withQueue(f func(context.Context, queue.Admin) error) error {
	ctx := context.Background()
	client, err := g.dialQueue(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	q := queue.NewRemoteAdmin(patient{client})
	if st, err := q.Stats(ctx); err == nil && st.Fault != "" {
		_, _ = fmt.Fprintf(os.Stderr, "tabard: what can be read of a queue that is out of order: %s\n", st.Fault)
	}
	return withCode(exUnavailable, f(ctx, q))
}

// dialQueue reaches the running server's queue, within toolTimeout.
func (g *globals) dialQueue(ctx context.Context) (*rpc.Client, error) {
	c, err := g.dialControl()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	conn, err := c.Connect(ctx, procQueue)
	if err != nil {
		return nil, withCode(exUnavailable, err)
	}
	return rpc.NewClient(conn), nil
}

// patient bounds each call: work on a large queue takes many of them.
type patient struct{ rpc.Caller }

func (p patient) Call(ctx context.Context, method string, args, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	return p.Caller.Call(ctx, method, args, reply)
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
