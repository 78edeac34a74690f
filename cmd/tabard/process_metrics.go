package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"tabard/internal/config"
	"tabard/internal/count"
	"tabard/internal/metrics"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/internal/sandbox"
)

type metricsInit struct{ Common common }

// askStatus is the request of metrics to the supervisor for what `tabard status`
// shows of the processes.
const askStatus = "status"

// runMetrics serves metrics to programs on this machine.
func runMetrics(ctx context.Context, c *privsep.Child) error {
	var in metricsInit
	log, end, err := initialise(c, &in, &in.Common)
	if err != nil {
		return err
	}
	defer end()
	srv := metrics.New(metrics.Options{Log: log, Status: func(ctx context.Context) (st privsep.Status, err error) {
		err = c.Request(ctx, askStatus, rpc.None{}, &st)
		return st, err
	}})
	c.OnEdge(func(e privsep.Endpoint) { srv.Attach(e.Peer, e.Conn) })
	if _, err := c.DropPrivileges(metricsProfile()); err != nil {
		return err
	}
	l, err := c.Listener(procMetrics)
	if err != nil {
		return err
	}
	if err := c.Ready(); err != nil {
		return err
	}
	return srv.Serve(ctx, l)
}

// metricsProfile: it lives on its listener and its edges.
func metricsProfile() sandbox.Profile { return sandbox.Profile{Accepts: true} }

// serveCounts serves a process' numbers on its edge to metrics, and reports whether
// e is that.
func serveCounts(ctx context.Context, log *slog.Logger, e privsep.Endpoint, values func(context.Context) ([][]float64, error)) bool {
	if e.Name != edgeMetrics {
		return false
	}
	serve(ctx, log, e, func(s *rpc.Server) (func(), error) { return nothing, count.Register(s, values) })
	return true
}

// metricsSpec describes the process, if the configuration asks for it.
func (d *daemon) metricsSpec(p *plan) (privsep.Spec, bool) {
	if p.metrics == nil {
		return privsep.Spec{}, false
	}
	return p.confined(privsep.Spec{
		Name: procMetrics, Init: metricsInit{d.commonOf(p)},
		Listeners: []privsep.Listener{{Name: procMetrics, File: p.metrics}}, OnRequest: d.onMetricsRequest,
	}), true
}

// metricsEdges lead to everybody who counts.
func metricsEdges() []privsep.Edge {
	var edges []privsep.Edge
	for _, to := range []string{procSMTPD, procMTA, procQueue, procLookup} {
		edges = append(edges, privsep.Edge{Name: edgeMetrics, From: procMetrics, To: to})
	}
	return edges
}

func (d *daemon) onMetricsRequest(_ context.Context, r privsep.Request) (any, error) {
	if r.Kind != askStatus {
		return nil, fmt.Errorf("unknown request %q", r.Kind)
	}
	st := served{d}.Status()
	for i := range st.Processes {
		st.Processes[i].LastExit = "" // the words of others are of no use there
	}
	return st, nil
}

// bindMetrics opens the socket for metrics, or takes over the one that old, which
// may be nil, has at the same address.
func bindMetrics(cfg *config.Config, old *plan) (*os.File, error) {
	switch {
	case cfg.Metrics == "":
		return nil, nil
	case old != nil && old.metrics != nil && old.cfg.Metrics == cfg.Metrics:
		return old.metrics, nil
	}
	f, err := privsep.Listen("tcp", cfg.Metrics)
	if err != nil {
		return nil, exitf(exUnavailable, "%s: metrics on %s: %w", cfg.Where["metrics"], cfg.Metrics, err)
	}
	return f, nil
}

// closeMetrics closes the socket of a plan that does not come into force.
func (p *plan) closeMetrics(old *plan) {
	if p.metrics != nil && (old == nil || old.metrics != p.metrics) {
		_ = p.metrics.Close()
	}
}

// moveMetrics starts, moves or ends the process after a reload. It counts on through
// one that does not concern it.
func (d *daemon) moveMetrics(ctx context.Context, old, p *plan) {
	if old.metrics == p.metrics {
		return
	}
	if old.metrics != nil {
		if err := d.sup.Remove(procMetrics); err != nil {
			d.log.Error("metrics do not end", "error", err)
		}
	}
	spec, wanted := d.metricsSpec(p)
	if !wanted {
		return
	}
	err := d.sup.Add(ctx, spec, metricsEdges()...)
	if errors.Is(err, privsep.ErrNotReady) {
		d.log.Error("metrics are not served yet", "error", err)
		return
	}
	if err != nil {
		d.log.Error("metrics are not served", "error", err)
		_ = p.metrics.Close()
		p.metrics = nil
	}
}

// withUsage adds what the processes take of the machine, as far as that can be
// known.
func withUsage(processes []privsep.ProcessStatus) []privsep.ProcessStatus {
	processes = slices.Clone(processes)
	for i := range processes {
		if processes[i].PID == 0 {
			continue
		}
		if u, err := privsep.UsageOf(processes[i].PID); err == nil {
			processes[i].Usage = &u
		}
	}
	return processes
}
