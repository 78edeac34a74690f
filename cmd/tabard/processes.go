package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"tabard/internal/config"
	"tabard/internal/deliver"
	"tabard/internal/logging"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
	"tabard/smtpd"
)

// The processes and the edges between them (DESIGN section 2). On each edge only
// what its client may ask is served.
const (
	procLookup  = "lookup"
	procSMTPD   = "smtpd"
	procQueue   = "queue"
	procMTA     = "mta"
	procDeliver = "deliver" // and a blank and the user id

	edgeInbound  = "inbound"  // smtpd asks lookup
	edgeOutbound = "outbound" // mta asks lookup
	edgeLocal    = "local"    // queue asks lookup
	edgeSubmit   = "submit"   // smtpd hands messages to queue
	edgeRelay    = "relay"    // mta takes work from queue
	edgeDeliver  = "deliver"  // a deliver process takes work from queue
	edgeControl  = "control"  // the command line asks queue
)

// askDeliver is queue's request to the supervisor for a deliver process.
const askDeliver = "deliver"

// deliverAs is the payload of askDeliver; -1 is the server's own mail user.
type deliverAs struct{ UID, GID int }

// drain bounds how long sessions and deliveries may go on after a stop.
const drain = 20 * time.Second

// common is what every process is told.
type common struct {
	Log     logging.Options
	Profile string // directory for CPU profiles; empty: none
	Host    string // the server's name
}

type lookupInit struct {
	Common common
	Config config.Config
	DNS    dnsConfig
}

type smtpdInit struct {
	Common    common
	Config    smtpd.Config
	Listeners []boundListener
}

// boundListener names one socket of a `listen on` directive.
type boundListener struct {
	Index int
	Name  string
}

type queueInit struct {
	Common common
	Config queueConfig
	Paused bool // nothing is delivered locally
}

type mtaInit struct {
	Common common
	Config mtaConfig
	Paused bool
}

type deliverInit struct {
	Common common
}

// gcPercent lets the heap of a process grow further than Go's 100 % before it is
// collected. What lives in these processes is small and what they allocate dies
// at once: measured, it saves a fifth of the CPU per message. lookup keeps Go's
// value, because tables may be large.
func gcPercent(kind string) int {
	return map[string]int{procSMTPD: 400, procMTA: 400, procQueue: 200}[kind]
}

// childMain runs the process called name, and returns its exit code.
func childMain(name string) int {
	run := map[string]func(context.Context, *privsep.Child) error{
		procLookup: runLookup, procSMTPD: runSMTPD, procQueue: runQueue, procMTA: runMTA, procDeliver: runDeliver,
	}
	kind, _, _ := strings.Cut(name, " ")
	f := run[kind]
	if f == nil {
		_, _ = fmt.Fprintf(os.Stderr, "tabard: there is no process called %q\n", name)
		return exSoftware
	}
	if p := gcPercent(kind); p > 0 && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(p)
	}
	return privsep.Main(f)
}

// begin makes the process' logger and starts its profile, if there is to be one.
func (c common) begin(child *privsep.Child) (*slog.Logger, func(), error) {
	log, err := logging.New(os.Stderr, strings.ReplaceAll(child.Name(), " ", "-"), c.Log)
	if err != nil || c.Profile == "" {
		return log, func() {}, err
	}
	f, err := os.Create(filepath.Join(c.Profile, strings.ReplaceAll(child.Name(), " ", "-")+".pprof"))
	if err != nil {
		return nil, nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, nil, err
	}
	return log, func() { pprof.StopCPUProfile(); _ = f.Close() }, nil
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

// nothing is what is to be done when most edges are gone.
func nothing() {}

func runLookup(ctx context.Context, c *privsep.Child) error {
	var in lookupInit
	if err := c.Init(&in); err != nil {
		return err
	}
	log, end, err := in.Common.begin(c)
	if err != nil {
		return err
	}
	defer end()
	// Key and certificate files are read now, while that is still allowed.
	svc, err := openLookup(ctx, &in.Config, in.Common.Host, in.DNS, log)
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	if _, err := c.DropPrivileges(); err != nil {
		return err
	}
	// Sessions of other processes end before this one, so edges are served to
	// the end and not only until the stop.
	served, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	c.OnEdge(func(e privsep.Endpoint) {
		serve(served, log, e, func(s *rpc.Server) (func(), error) {
			switch e.Name {
			case edgeInbound:
				return nothing, lookup.RegisterInbound(s, svc)
			case edgeOutbound:
				return nothing, lookup.RegisterOutbound(s, svc)
			case edgeLocal:
				return nothing, lookup.RegisterLocal(s, svc)
			}
			return nil, fmt.Errorf("nobody may ask lookup by %q", e.Name)
		})
	})
	if err := c.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// setLinks gives client ends of edges to the links of their names.
func setLinks(e privsep.Endpoint, links map[string]*rpc.Link) bool {
	l := links[e.Name]
	if l == nil || !e.Client {
		return false
	}
	l.Set(e.Conn)
	return true
}

func runSMTPD(ctx context.Context, c *privsep.Child) error {
	var in smtpdInit
	if err := c.Init(&in); err != nil {
		return err
	}
	log, end, err := in.Common.begin(c)
	if err != nil {
		return err
	}
	defer end()
	toLookup, toQueue := rpc.NewLink(procLookup), rpc.NewLink(procQueue)
	c.OnEdge(func(e privsep.Endpoint) {
		setLinks(e, map[string]*rpc.Link{edgeInbound: toLookup, edgeSubmit: toQueue})
	})
	srv, err := smtpd.New(in.Config, lookup.NewInbound(toLookup), queue.NewRemote(toQueue), log)
	if err != nil {
		return err
	}
	if _, err := c.DropPrivileges(); err != nil {
		return err
	}
	failed := make(chan error, len(in.Listeners))
	for _, bound := range in.Listeners {
		l, err := c.Listener(bound.Name)
		if err != nil {
			return err
		}
		go func() {
			if err := srv.Serve(context.WithoutCancel(ctx), bound.Index, l); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("listener %s: %w", bound.Name, err)
			}
		}()
	}
	if err := c.Ready(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	return srv.Shutdown(patience)
}

func runQueue(ctx context.Context, c *privsep.Child) error {
	var in queueInit
	if err := c.Init(&in); err != nil {
		return err
	}
	log, end, err := in.Common.begin(c)
	if err != nil {
		return err
	}
	defer end()
	if _, err := c.DropPrivileges(); err != nil {
		return err
	}
	store, err := in.Config.openStore(ctx)
	if err != nil {
		return err
	}
	toLookup := rpc.NewLink(procLookup)
	// The edges to lookup are needed before the queue can be made.
	early := make(chan privsep.Endpoint, 64)
	c.OnEdge(func(e privsep.Endpoint) {
		if !setLinks(e, map[string]*rpc.Link{edgeLocal: toLookup}) {
			early <- e
		}
	})
	spawn := func(ctx context.Context, uid, gid int) error {
		err := c.Request(ctx, askDeliver, deliverAs{uid, gid}, nil)
		if err != nil && strings.Contains(err.Error(), privsep.ErrStopping.Error()) {
			<-ctx.Done() // no fault of the mail: it waits for the next start
		}
		return err
	}
	if in.Paused {
		spawn = nil
	}
	q, err := in.Config.open(ctx, store, lookup.NewLocal(toLookup), spawn, log)
	if err != nil {
		return err
	}
	served, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	go func() {
		for {
			select {
			case e := <-early:
				serveQueue(served, log, q, e)
			case <-served.Done():
				return
			}
		}
	}()
	if err := c.Ready(); err != nil {
		return err
	}
	err = q.Run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	if closed := q.Close(); err == nil {
		err = closed
	}
	return err
}

// serveQueue serves what the peer of an edge may ask of the queue.
func serveQueue(ctx context.Context, log *slog.Logger, q *queue.Queue, e privsep.Endpoint) {
	serve(ctx, log, e, func(s *rpc.Server) (func(), error) {
		switch e.Name {
		case edgeSubmit:
			return queue.RegisterClient(s, q)
		case edgeRelay:
			w, release := q.RelayWorker()
			return release, queue.RegisterWorker(s, w)
		case edgeDeliver:
			uid, err := deliverUID(e.Peer)
			if err != nil {
				return nil, err
			}
			w, release := q.LocalWorker(uid)
			return release, queue.RegisterWorker(s, w)
		case edgeControl:
			return nothing, queue.RegisterAdmin(s, q)
		}
		return nil, fmt.Errorf("nobody may ask queue by %q", e.Name)
	})
}

// deliverName returns the name of the process that delivers as uid.
func deliverName(uid int) string { return procDeliver + " " + strconv.Itoa(uid) }

// deliverUID is the reverse of deliverName.
func deliverUID(name string) (int, error) {
	num, ok := strings.CutPrefix(name, procDeliver+" ")
	uid, err := strconv.Atoi(num)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q delivers for no user id", name)
	}
	return uid, nil
}

func runMTA(ctx context.Context, c *privsep.Child) error {
	var in mtaInit
	if err := c.Init(&in); err != nil {
		return err
	}
	log, end, err := in.Common.begin(c)
	if err != nil {
		return err
	}
	defer end()
	toLookup, toQueue := rpc.NewLink(procLookup), rpc.NewLink(procQueue)
	m, err := in.Config.open(lookup.NewOutbound(toLookup), queue.NewRemoteWorker(toQueue), log)
	if err != nil {
		return err
	}
	if _, err := c.DropPrivileges(); err != nil {
		return err
	}
	c.OnEdge(func(e privsep.Endpoint) {
		setLinks(e, map[string]*rpc.Link{edgeOutbound: toLookup, edgeRelay: toQueue})
	})
	if err := c.Ready(); err != nil {
		return err
	}
	if in.Paused {
		<-ctx.Done()
		return nil
	}
	return ended(ctx, m.Run(ctx))
}

// ended returns what made a component end, unless that was the stop itself.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// deliverIdle is how long a deliver process waits for more mail of its user.
const deliverIdle = time.Minute

func runDeliver(ctx context.Context, c *privsep.Child) error {
	var in deliverInit
	if err := c.Init(&in); err != nil {
		return err
	}
	log, end, err := in.Common.begin(c)
	if err != nil {
		return err
	}
	defer end()
	if _, err := c.DropPrivileges(); err != nil {
		return err
	}
	toQueue := rpc.NewLink(procQueue)
	c.OnEdge(func(e privsep.Endpoint) {
		setLinks(e, map[string]*rpc.Link{edgeDeliver: toQueue})
	})
	if err := c.Ready(); err != nil {
		return err
	}
	err = deliver.Run(ctx, queue.NewRemoteWorker(toQueue), deliver.Options{Logger: log, Hostname: in.Common.Host, Idle: deliverIdle, Grace: drain})
	return ended(ctx, err)
}
