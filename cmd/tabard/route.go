package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/address"
	"tabard/internal/rpc"
	"tabard/mta"
	"tabard/queue"
)

func newRoute(g *globals) *cobra.Command {
	cmd := &cobra.Command{Use: "route", Short: "See and pause the ways that mail takes out", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(g.routeList(), g.routePause(), g.routeResume())
	return cmd
}

// routeState is one line of `tabard route ls`.
type routeState struct {
	Action    string     `json:"action"`
	Domain    string     `json:"domain,omitempty"` // empty: all
	Servers   string     `json:"servers,omitempty"`
	Source    string     `json:"source,omitempty"`
	Sessions  int        `json:"sessions"`
	InFlight  int        `json:"in_flight"`
	Limit     int        `json:"limit,omitempty"` // 0: not known
	Waiting   int64      `json:"waiting"`
	Held      int64      `json:"held"`
	State     string     `json:"state"` // ok, backing off or paused
	Until     *time.Time `json:"until,omitempty"`
	Paused    string     `json:"paused,omitempty"` // why
	LastError string     `json:"last_error,omitempty"`
}

func newRouteState(r queue.Route, lanes map[string]mta.Lane) routeState {
	lane := lanes[r.Servers]
	s := routeState{
		Action: r.Action, Domain: r.Domain, Servers: r.Servers, Source: r.Source, Sessions: lane.Sessions, InFlight: r.InFlight,
		Limit: lane.Limit, Waiting: r.Waiting, Held: r.Held, State: "ok", Paused: r.Paused, LastError: r.LastError,
	}
	switch {
	case r.Paused != "":
		s.State = "paused"
	case !r.Until.IsZero():
		s.State, s.Until = "backing off", &r.Until
	}
	return s
}

func (s routeState) row(now time.Time) []string {
	state := s.State
	if s.Until != nil {
		state += " for " + s.Until.Sub(now).Round(time.Second).String()
	}
	why := s.Paused
	if why == "" {
		why = s.LastError
	}
	limit := "-"
	if s.Limit > 0 {
		limit = strconv.Itoa(s.Limit)
	}
	domain := s.Domain
	if domain == "" {
		domain = "(all)"
	}
	return []string{
		domain, dash(s.Action), dash(strings.ReplaceAll(s.Servers, " ", ",")), dash(s.Source), strconv.Itoa(s.Sessions), limit,
		strconv.FormatInt(s.Waiting, 10), state, address.OneLine(dash(why), 200),
	}
}

func (g *globals) routeList() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List where mail waits to go, or lately went",
		Long: `Ls prints a line for each destination of relayed mail: the action and the servers that
its mail goes to, the address that it is sent from if one is set, the sessions that are
open to these servers and how many messages they may have at once at the moment, the
envelopes that wait, and how the route does: ok; backing off, until one message tries it
again; or paused. The last error stands behind. Destinations with the same servers share
sessions and limit. Servers are known once something went there since the start.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var routes []queue.Route
			err := g.withQueue(func(ctx context.Context, q queue.Admin) (err error) {
				routes, err = q.Routes(ctx)
				return err
			})
			if err != nil {
				return err
			}
			lanes, err := g.lanes()
			if err != nil { // that mta is away is no reason to hide the rest
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "sessions and limits cannot be said: %v\n", err)
			}
			all := make([]routeState, len(routes))
			rows := make([][]string, len(routes))
			for i, r := range routes {
				all[i] = newRouteState(r, lanes)
				rows[i] = all[i].row(time.Now())
			}
			return g.printList(cmd, all, []string{"DESTINATION", "ACTION", "SERVERS", "SOURCE", "SESSIONS", "LIMIT", "WAITING", "STATE", "LAST ERROR"}, rows)
		},
	}
}

// lanes asks mta how the servers do.
func (g *globals) lanes() (map[string]mta.Lane, error) {
	c, err := g.dialControl()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	conn, err := c.Connect(ctx, procMTA)
	if err != nil {
		return nil, err
	}
	client := rpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	list, err := mta.NewRoutes(client).Lanes(ctx)
	lanes := make(map[string]mta.Lane, len(list))
	for _, l := range list {
		lanes[l.Servers] = l
	}
	return lanes, err
}

const pausing = `ROUTE is a destination's domain, or a server: its name as mail is sent there (that of an
MX host, or of a relay URL), with :PORT or without. Of several servers for the same mail,
those that are not paused are used.`

func (g *globals) routePause() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "pause ROUTE...",
		Short: "Send nothing to a destination or over a server until it is resumed",
		Long: pausing + `

The queue keeps back what would go there, also over restarts, and says why in its lists.
Mail that is kept back does not expire. What is being sent is not called back.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				return eachOf(args, func(route string) error { return beginHold(ctx, cmd, q, queue.HoldRoute, route, reason) })
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for whoever wonders")
	return cmd
}

func (g *globals) routeResume() *cobra.Command {
	return &cobra.Command{
		Use:   "resume ROUTE...",
		Short: "Send again what a pause kept back",
		Long:  pausing + " What was paused by one name is resumed by the same.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.withQueue(func(ctx context.Context, q queue.Admin) error {
				return eachOf(args, func(route string) error { return release(ctx, cmd, q, queue.HoldRoute, route) })
			})
		},
	}
}

// eachOf calls do for all arguments, also after one of them failed: unless what
// failed is the server.
func eachOf[T any](args []T, do func(T) error) error {
	var all error
	for _, arg := range args {
		err := do(arg)
		all = errors.Join(all, err)
		var own *exitError
		if err != nil && !errors.As(err, &own) {
			break
		}
	}
	return all
}

// beginHold begins one hold and says what it keeps back.
func beginHold(ctx context.Context, cmd *cobra.Command, q queue.Admin, kind queue.HoldKind, value, reason string) error {
	h, err := q.Hold(ctx, queue.Hold{Kind: kind, Value: value, Reason: reason})
	if err != nil {
		return holdError(err)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), h.String())
	return err
}

// release ends one hold and says what that did.
func release(ctx context.Context, cmd *cobra.Command, q queue.Admin, kind queue.HoldKind, value string) error {
	n, err := q.Release(ctx, kind, value)
	if errors.Is(err, rpc.ErrNotFound) {
		return exitf(exDataErr, "%s %s is not held", kind, value)
	}
	if err != nil {
		return holdError(err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %d envelopes due\n", kind, value, n)
	return err
}

// holdError tells a wrong word from a server that is away.
func holdError(err error) error {
	if errors.Is(err, rpc.ErrInvalid) {
		return withCode(exUsage, err)
	}
	return err
}
