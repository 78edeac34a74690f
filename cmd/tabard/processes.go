package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"

	"tabard/internal/logging"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
)

// The processes and the edges between them (DESIGN section 2). On each edge only
// what its client may ask is served.
const (
	procLookup  = "lookup"
	procSMTPD   = "smtpd"
	procQueue   = "queue"
	procMTA     = "mta"
	procDeliver = "deliver" // and a blank and the user id
	procConfig  = "config"  // reads the configuration from a database
	procMetrics = "metrics" // serves metrics, if they are wanted

	edgeInbound  = "inbound"  // smtpd asks lookup
	edgeOutbound = "outbound" // mta asks lookup
	edgeLocal    = "local"    // queue asks lookup
	edgeSubmit   = "submit"   // smtpd hands messages to queue
	edgeRelay    = "relay"    // mta takes work from queue
	edgeDeliver  = "deliver"  // a deliver process takes work from queue
	edgeControl  = "control"  // the command line asks lookup, queue and mta
	edgeMetrics  = "metrics"  // metrics asks everybody for numbers
)

// common is what every process is told.
type common struct {
	Log     logging.Options
	Profile string // directory for CPU profiles; empty: none
	Host    string // the server's name
	Events  bool   // there is an event log
	Config  string // where the configuration is from
}

// childMain runs the process called name, and returns its exit code.
func childMain(name string) int {
	run := map[string]func(context.Context, *privsep.Child) error{
		procLookup: runLookup, procSMTPD: runSMTPD, procQueue: runQueue, procMTA: runMTA, procDeliver: runDeliver,
		procConfig: runConfig, procMetrics: runMetrics,
	}
	kind, _, _ := strings.Cut(name, " ")
	f := run[kind]
	if f == nil {
		_, _ = fmt.Fprintf(os.Stderr, "tabard: there is no process called %q\n", name)
		return exSoftware
	}
	setGCPercent(kind)
	return privsep.Main(f)
}

// begin makes the process' logger and starts its profile, if there is to be one.
func (c common) begin(child *privsep.Child) (*slog.Logger, func(), error) {
	out := logging.NewBatch(os.Stderr)
	log, err := logging.New(out, strings.ReplaceAll(child.Name(), " ", "-"), c.Log)
	end := func() { _ = out.Close() }
	if err != nil || c.Profile == "" {
		return log, end, err
	}
	f, err := os.Create(filepath.Join(c.Profile, strings.ReplaceAll(child.Name(), " ", "-")+".pprof"))
	if err != nil {
		return nil, nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, nil, err
	}
	return log, func() { pprof.StopCPUProfile(); _ = f.Close(); end() }, nil
}

// initialise takes over what the supervisor told the process: in, whose shared
// part is shared.
func initialise(child *privsep.Child, in any, shared *common) (*slog.Logger, func(), error) {
	if err := child.Init(in); err != nil {
		return nil, nil, err
	}
	return shared.begin(child)
}

// serve answers on one edge until it closes. register says what is served, and
// returns what to do when the edge is gone.
func serve(ctx context.Context, log *slog.Logger, e privsep.Endpoint, register func(*rpc.Server) (func(), error)) {
	srv := rpc.NewServer(rpc.Logger(log))
	done, err := register(srv)
	if err != nil {
		log.Error("edge cannot be served", "edge", e.Name, "error", err)
		_ = e.Conn.Close()
		return
	}
	go func() {
		defer done()
		if err := srv.Serve(ctx, e.Conn); err != nil && ctx.Err() == nil {
			log.Warn("edge closed", "edge", e.Name, "peer", e.Peer, "error", err)
		}
	}()
}

// rested tells the supervisor that a retiring process takes no new work.
func rested(c *privsep.Child, log *slog.Logger) {
	if err := c.Rested(); err != nil {
		log.Warn("the supervisor does not hear that no new work is taken", "error", err)
	}
}

// nothing is what is to be done when most edges are gone.
func nothing() {}

// setLinks gives client ends of edges to the links of their names.
func setLinks(e privsep.Endpoint, links map[string]*rpc.Link) bool {
	l := links[e.Name]
	if l == nil || !e.Client {
		return false
	}
	l.Set(e.Conn)
	return true
}
