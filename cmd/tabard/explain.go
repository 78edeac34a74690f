package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/internal/control"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/mta"
	"tabard/queue"
)

// explanation is what `tabard explain --json` prints.
type explanation struct {
	lookup.Explanation
	Relays []relayPlan `json:"relays,omitempty"`
	Held   []string    `json:"held,omitempty"` // holds that keep back the mail of a target
	Code   int         `json:"exit_code"`
}

// relayPlan is where the recipients of one action and domain go.
type relayPlan struct {
	Action     string   `json:"action,omitempty"`
	Recipients []string `json:"recipients"`
	mta.Explanation
}

// mailAsks is what is assumed of the message, and whether hosts are asked for it.
type mailAsks struct{ requireTLS, tlsOptional, probe bool }

// maxRelayPlans bounds the destinations that are looked up.
const maxRelayPlans = 20

// probePatience is how long probes may take together.
const probePatience = 5 * time.Minute

func newExplain(g *globals) *cobra.Command {
	var r lookup.ExplainRequest
	var client string
	var direct bool
	var asks mailAsks
	cmd := &cobra.Command{
		Use:   "explain FROM TO",
		Short: "Tell what would become of a message, and why",
		Long: `Explain puts a message that nobody sent through the rules, aliases and routes, as the
server does at RCPT and before each delivery, and prints what they say: the match rule
that decides and those passed over, with the condition that did not fit; the aliases as a
tree; for each relay the rows it comes from, the hosts and addresses in the order they
are tried, what DNS said and for how much longer it is believed, how the connection must
be secured and who wants it so, source addresses, EHLO name, client certificate and the
label of credentials. Nothing is sent, and no password is shown. FROM is <> for the null
reverse-path.

Rules may look at the session that the message comes by. Without any of --listener,
--client, --rdns, --helo, --auth, --tls and --tls-verified that is the local socket; with one of them, a
session from the network to the listener named, or else to the first (with --auth, to the
first that has auth or cert-auth). These give what the conditions ask for: from src and
from local (--client), from rdns (--rdns, or else DNS), helo (--helo), auth and from auth
(--auth), tls (--tls), tls verified (--tls-verified), tag (--listener).

A message may ask for TLS itself: --requiretls and --tls-required-no say that it does so
by REQUIRETLS, or that it does not need what the tls-policy table says (RFC 8689).

With --probe, hosts are connected to in their turn until one would take mail: as far as
EHLO after STARTTLS, with no login and no message.

A running server is asked; without one, or with --direct, tables are opened and DNS is
asked here. The exit code is 0 when the message would be accepted and there is a host to
try, 65 for an address that is none, 67 for a user who does not exist, 77 when the rules
refuse, 68 when it would bounce for want of a host, 75 when it would have to wait: a table
is down, DNS fails, no host passed --probe, or a hold of the queue keeps it back (which a
running server alone can tell).`,
		Args: cobra.ExactArgs(2),
	}
	flags := cmd.Flags()
	flags.StringVar(&r.Listener, "listener", "", "listener by its `name`: tag, port, address or address:port")
	flags.StringVar(&client, "client", "", "`address` of the client")
	flags.StringVar(&r.RDNS, "rdns", "", "the client's `name` by reverse DNS")
	flags.StringVar(&r.Helo, "helo", "", "`name` that the client gives in EHLO")
	flags.StringVar(&r.User, "auth", "", "`user` that the client is authenticated as")
	flags.BoolVar(&r.TLS, "tls", false, "the session has TLS")
	flags.BoolVar(&r.Verified, "tls-verified", false, "the session has TLS, and the client's certificate was verified")
	flags.BoolVar(&asks.requireTLS, "requiretls", false, "the message comes with REQUIRETLS")
	flags.BoolVar(&asks.tlsOptional, "tls-required-no", false, "the message has the header field TLS-Required: No")
	flags.BoolVar(&asks.probe, "probe", false, "connect to the hosts, without sending")
	flags.BoolVar(&direct, "direct", false, "open tables here, even if a server runs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.Sender, r.Recipient = trimAngles(args[0]), trimAngles(args[1])
		if err := checkExplain(&r, client); err != nil {
			return withCode(exUsage, err)
		}
		cfg, err := g.load()
		if err != nil {
			return err
		}
		return g.withAdmin(cfg, direct, func(ctx context.Context, a lookup.Admin) error {
			return g.explain(ctx, cmd, cfg, a, r, asks)
		})
	}
	return cmd
}

func trimAngles(addr string) string {
	return strings.TrimSuffix(strings.TrimPrefix(addr, "<"), ">")
}

// checkExplain reads what the flags give.
func checkExplain(r *lookup.ExplainRequest, client string) (err error) {
	if r.Sender != "" {
		if _, err := address.Parse(r.Sender); err != nil {
			return fmt.Errorf("FROM %.100q: %w", r.Sender, err)
		}
	}
	if r.Recipient == "" {
		return fmt.Errorf("TO is empty")
	}
	if client != "" {
		if r.Client, err = netip.ParseAddr(client); err != nil {
			return fmt.Errorf("--client: %w", err)
		}
	}
	return nil
}

// explain asks lookup what becomes of the message, and mta of what is relayed.
func (g *globals) explain(ctx context.Context, cmd *cobra.Command, cfg *config.Config, a lookup.Admin, r lookup.ExplainRequest, asks mailAsks) error {
	patience := toolTimeout
	if asks.probe {
		patience = probePatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var e explanation
	var err error
	if e.Explanation, err = a.Explain(ctx, r); errors.Is(err, rpc.ErrInvalid) {
		return withCode(exUsage, err)
	} else if err != nil {
		return withCode(exUnavailable, err)
	}
	holds, err := holdsBeside(ctx, cfg, a)
	if err != nil { // that queue is away is no reason to hide the rest
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "holds cannot be said: %v\n", err)
	}
	e.Held = heldBy(holds, e.Reply.Targets, r.Sender)
	var more bool
	e.Relays, more = relayPlans(e.Reply.Targets)
	if e.Cut = e.Cut || more; len(e.Relays) > 0 {
		m, end, err := g.mtaBeside(ctx, cfg, a)
		if err != nil {
			return withCode(exUnavailable, err)
		}
		defer end()
		for i := range e.Relays {
			p := &e.Relays[i]
			p.Explanation, err = m.Explain(ctx, mta.ExplainRequest{
				Action: p.Action, Address: p.Recipients[0], Original: r.Recipient, Sender: r.Sender, Probe: asks.probe, Paused: holds,
				RequireTLS: asks.requireTLS, TLSOptional: asks.tlsOptional,
			})
			if err != nil {
				return withCode(exTempFail, err)
			}
		}
	}
	e.Code = e.exitCode(asks.probe)
	if g.json {
		err = printJSON(cmd.OutOrStdout(), e)
	} else {
		err = printExplanation(cmd.OutOrStdout(), &e, r)
	}
	if err == nil && e.Code != 0 {
		return &exitError{e.Code, errSilent}
	}
	return err
}

// relayPlans groups relayed recipients by what decides their route. It reports
// whether there are more than are looked up.
func relayPlans(targets []lookup.Target) (plans []relayPlan, more bool) {
	at := make(map[string]int)
	for _, t := range targets {
		if !t.Relay {
			continue
		}
		_, domain := address.Split(t.Address)
		key := t.Action + "\x00" + domain
		i, ok := at[key]
		switch {
		case ok:
			plans[i].Recipients = append(plans[i].Recipients, t.Address)
		case len(plans) < maxRelayPlans:
			at[key] = len(plans)
			plans = append(plans, relayPlan{Action: t.Action, Recipients: []string{t.Address}})
		default:
			more = true
		}
	}
	return plans, more
}

// mtaBeside reaches the mta that relays for a, until end is called: the running
// server's, or one made here that only explains.
func (g *globals) mtaBeside(ctx context.Context, cfg *config.Config, a lookup.Admin) (m mta.Explainer, end func(), err error) {
	svc, here := a.(*lookup.Service)
	if here {
		// Without name servers every question is a temporary failure, and says so.
		names, _ := systemDNS(cfg)
		m, err := mtaConfig{Hostname: serverName(cfg, g.path()), DNS: names}.open(svc, nil, nil, slog.New(slog.DiscardHandler))
		return m, nothing, err
	}
	c, err := control.Dial(controlSocket(cfg))
	if err != nil {
		return nil, nil, err
	}
	conn, err := c.Connect(ctx, procMTA)
	if err != nil {
		return nil, nil, err
	}
	client := rpc.NewClient(conn)
	return mta.NewExplainer(client), func() { _ = client.Close() }, nil
}

// holdsBeside asks the running server's queue what is held. Without a server that
// is not known.
func holdsBeside(ctx context.Context, cfg *config.Config, a lookup.Admin) ([]queue.Hold, error) {
	if _, here := a.(*lookup.Service); here {
		return nil, nil
	}
	c, err := control.Dial(controlSocket(cfg))
	if err != nil {
		return nil, err
	}
	conn, err := c.Connect(ctx, procQueue)
	if err != nil {
		return nil, err
	}
	client := rpc.NewClient(conn)
	defer func() { _ = client.Close() }()
	list, err := queue.NewRemoteAdmin(client).Holds(ctx)
	holds := make([]queue.Hold, len(list))
	for i := range list {
		holds[i] = list[i].Hold
	}
	return holds, err
}

// heldBy tells which holds keep back mail for targets.
func heldBy(holds []queue.Hold, targets []lookup.Target, sender string) []string {
	var held []string
	for i := range holds {
		if h := &holds[i]; slices.ContainsFunc(targets, func(t lookup.Target) bool {
			return h.About(&queue.Envelope{Address: t.Address, Action: t.Action, Relay: t.Relay}, sender)
		}) {
			held = append(held, h.String())
		}
	}
	return held
}

// exitCode is what the explanation comes to, for scripts.
func (e *explanation) exitCode(probe bool) int {
	switch code := e.Reply.Code; {
	case e.Fault != "" || code >= 400 && code < 500:
		return exTempFail
	case e.Reply.Enhanced == "5.1.1":
		return exNoUser
	case e.Reply.Enhanced == "5.1.3":
		return exDataErr
	case code >= 500:
		return exNoPerm
	}
	worst := 0
	if len(e.Held) > 0 {
		worst = exTempFail
	}
	for _, p := range e.Local {
		switch {
		case p.Final:
			return exNoUser
		case p.Fault != "":
			worst = exTempFail
		}
	}
	for _, p := range e.Relays {
		switch {
		case p.Fault != nil && p.Fault.Final:
			return exNoHost
		case p.Fault != nil, !hasHost(p.Hosts, probe):
			worst = exTempFail
		}
	}
	return worst
}

// hasHost reports whether there is an address to try, and with a probe, one
// that would take mail.
func hasHost(hosts []mta.HostPlan, probe bool) bool {
	for _, h := range hosts {
		if h.Fault != nil {
			continue
		}
		for _, a := range h.Addresses {
			if n := len(a.Probes); !probe || n > 0 && a.Probes[n-1].Fault == "" {
				return true
			}
		}
	}
	return false
}
