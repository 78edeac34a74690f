package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/config"
	"tabard/internal/control"
	"tabard/internal/logging"
	"tabard/internal/privsep"
)

// profileEnv names a directory into which every process writes a CPU profile.
const profileEnv = "TABARD_CPUPROFILE"

// runOptions are the flags of run and quickstart.
type runOptions struct {
	log   logging.Options
	pause []string
	user  string
}

func (o *runOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.log.Format, "log-format", "text", "form of the log on standard error: text or json")
	cmd.Flags().StringVar(&o.log.Level, "log-level", "info", "least important events logged: debug, info, warn or error")
	cmd.Flags().StringSliceVar(&o.pause, "pause", nil, "start with deliveries paused: mta, mda or both (mail is accepted and kept)")
}

func newRun(g *globals) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the server in the foreground",
		Long: `Run starts the server's processes and stays in the foreground, logging to standard
error. SIGTERM or SIGINT stops it cleanly: running transactions finish first. A
second signal stops it at once; nothing accepted is lost either way.

SIGHUP reads the configuration again, as tabard reload does. With a database as
the configuration's source its changes are in force at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), g.source(), o)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&o.user, "config-user", defaultUsers()[procLookup], "started as root, the `user` who reads the configuration from a database")
	return cmd
}

// refuse says what a configuration asks for that this version cannot do.
func refuse(cfg *config.Config) error {
	var errs []error
	for _, u := range cfg.Unsupported {
		errs = append(errs, fmt.Errorf("%s: not supported yet: %s", u.Pos, u.What))
	}
	return withCode(exConfig, errors.Join(errs...))
}

// runServer runs the server of a configuration until a signal stops it. ready,
// if not nil, is called when it listens.
func runServer(ctx context.Context, cfg *config.Config, path string, o runOptions, ready func()) error {
	if ctx == nil {
		ctx = context.Background()
	}
	src := confSource{path: path}
	d, err := newDaemon(src, o)
	if err != nil {
		return err
	}
	l, err := src.load(ctx)
	if err != nil {
		return err
	}
	l.cfg = cfg
	return d.run(ctx, l, ready)
}

// newDaemon checks the options.
func newDaemon(src confSource, o runOptions) (*daemon, error) {
	for _, p := range o.pause {
		if p != "mta" && p != "mda" {
			return nil, exitf(exUsage, "--pause %s: want mta or mda", p)
		}
	}
	log, err := logging.New(os.Stderr, "supervisor", o.log)
	if err != nil {
		return nil, withCode(exUsage, err)
	}
	return &daemon{src: src, opts: o, log: log}, nil
}

// run runs the server until a signal stops it.
func (d *daemon) run(ctx context.Context, l loaded, ready func()) error {
	next, err := d.prepare(l)
	if err != nil {
		return err
	}
	d.self = privsep.ProcessStatus{
		Name: "supervisor", PID: os.Getpid(), State: privsep.StateRunning, Since: time.Now(), Layers: []privsep.Layer{privsep.CloseMemory()},
	}
	d.install(next)
	ctl, err := d.controlListener()
	if err != nil {
		return err
	}
	if next.sockets, err = bindAll(next.cfg, nil); err != nil {
		return err
	}
	defer func() { closeAll(d.plan().sockets.files) }()
	if next.metrics, err = bindMetrics(next.cfg, nil); err != nil {
		return err
	}
	defer func() { d.plan().closeMetrics(nil) }()
	specs, err := d.specs()
	if err != nil {
		return err
	}
	log := d.log
	// A process that keeps dying is tried every other second: while one is down,
	// mail is refused for the moment, which costs more than starting it.
	backoff := privsep.Backoff{Max: 2 * time.Second}
	if d.sup, err = privsep.New(specs, d.edges(), privsep.Options{Log: log, Backoff: backoff, Ready: func() {
		warnUnconfined(log, sandboxMode(next.cfg), served{d}.Status().Processes)
		log.Info("ready", "host", next.host, "config", d.src.String(), "pid", os.Getpid())
		if ready != nil {
			ready()
		}
	}}); err != nil {
		return err
	}
	defer d.serveControl(ctx, ctl)()
	defer d.followSource(ctx)()
	return confinedCode(d.sup.RunUntilSignal(ctx, syscall.SIGTERM, syscall.SIGINT))
}

// daemon is a server about to run.
type daemon struct {
	src    confSource
	opts   runOptions
	log    *slog.Logger
	sup    *privsep.Supervisor
	self   privsep.ProcessStatus // of the supervisor
	follow *follower             // of a database; else nil

	reloading sync.Mutex // held by reload

	mu    sync.Mutex
	now   *plan
	fault string // of the last reload
}

// plan returns what is in force.
func (d *daemon) plan() *plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *daemon) common() common { return d.commonOf(d.plan()) }

func (d *daemon) commonOf(p *plan) common {
	return common{Log: d.opts.log, Profile: os.Getenv(profileEnv), Host: p.host, Config: d.src.String(), Events: p.cfg.LogSQL.Table != ""}
}

// specs describes the processes, in the order in which they stop: who accepts
// mail first, who everybody asks last.
func (d *daemon) specs() ([]privsep.Spec, error) {
	p := d.plan()
	if err := spool(p.queue.Path, p.ids[procQueue]); err != nil {
		return nil, withCode(exCantCreat, err)
	}
	specs := d.replaceable(p)
	queue := p.confined(privsep.Spec{Name: procQueue, Init: d.queueInit(p), OnRequest: d.onQueueRequest})
	specs = slices.Insert(specs, len(specs)-1, queue)
	if m, wanted := d.metricsSpec(p); wanted { // it asks all the others
		specs = slices.Insert(specs, 0, m)
	}
	return specs, nil
}

func (d *daemon) paused(what string) bool { return slices.Contains(d.opts.pause, what) }

func (d *daemon) edges() []privsep.Edge {
	edges := []privsep.Edge{
		{Name: edgeInbound, From: procSMTPD, To: procLookup},
		{Name: edgeSubmit, From: procSMTPD, To: procQueue},
		{Name: edgeOutbound, From: procMTA, To: procLookup},
		{Name: edgeRelay, From: procMTA, To: procQueue},
		{Name: edgeLocal, From: procQueue, To: procLookup},
	}
	if d.plan().metrics != nil {
		edges = append(edges, metricsEdges()...)
	}
	return edges
}

// onQueueRequest starts a deliver process for a user who has mail.
func (d *daemon) onQueueRequest(ctx context.Context, r privsep.Request) (any, error) {
	if r.Kind != askDeliver {
		return nil, fmt.Errorf("unknown request %q", r.Kind)
	}
	var as deliverAs
	if err := r.Decode(&as); err != nil {
		return nil, err
	}
	cred, err := d.deliverCredential(as)
	if err != nil {
		return nil, err
	}
	p := d.plan()
	means := newDeliverMeans(p.cfg)
	spec := privsep.Spec{
		Name: deliverName(as.UID), Init: deliverInit{d.common(), means}, Credential: cred,
		SetuidPrograms: means.Programs, Sandbox: sandboxMode(p.cfg),
	}
	return nil, d.spawnDeliver(ctx, spec)
}

// Bounds of deliver processes.
const (
	maxDelivers = 100                   // at once
	endingPoll  = 20 * time.Millisecond // how often a process that is ending is looked at
	endingWait  = 5 * time.Second       // how long it is waited for
)

// spawnDeliver starts a deliver process. When the last one for the user is just
// ending (the queue may see that before the supervisor), it waits for the end.
func (d *daemon) spawnDeliver(ctx context.Context, spec privsep.Spec) error {
	ctx, cancel := context.WithTimeout(ctx, endingWait)
	defer cancel()
	tick := time.NewTicker(endingPoll)
	defer tick.Stop()
	for {
		if n := len(d.sup.Status().Processes); n >= maxDelivers {
			return fmt.Errorf("%d processes run already", n)
		}
		err := d.sup.Spawn(spec, privsep.Edge{Name: edgeDeliver, From: spec.Name, To: procQueue})
		if !errors.Is(err, privsep.ErrRunning) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil // it lives, and is about to take the work
		}
	}
}

// deliverCredential says who a deliver process becomes. Without root there is
// one user only; with root, root itself gets no mail unless the configuration
// makes it the server's mail user.
func (d *daemon) deliverCredential(as deliverAs) (*privsep.Credential, error) {
	switch {
	case os.Getuid() != 0 && as.UID != -1 && as.UID != os.Getuid():
		return nil, fmt.Errorf("delivery as user id %d needs a server started as root", as.UID)
	case os.Getuid() != 0:
		return nil, nil
	case as.UID == -1:
		return d.plan().ids[procDeliver].cred, nil
	case as.UID == 0:
		return nil, errors.New("root gets no mail of its own: give it an alias")
	case as.UID < 0 || as.GID < 0:
		return nil, fmt.Errorf("no such user id %d, group id %d", as.UID, as.GID)
	}
	for name, id := range d.plan().ids {
		if name != procDeliver && id.cred != nil && id.cred.UID == as.UID {
			return nil, fmt.Errorf("user id %d is that of process %s and gets no mail", as.UID, name)
		}
	}
	return &privsep.Credential{UID: as.UID, GID: as.GID}, nil
}

// controlListener opens the socket for the command line.
func (d *daemon) controlListener() (*control.Server, error) {
	path := controlSocket(d.plan().cfg)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, exitf(exCantCreat, "control socket: %w", err)
	}
	srv, err := control.Listen(path, d.log)
	if errors.Is(err, privsep.ErrInUse) {
		return nil, exitf(exUnavailable, "tabard runs already: %w", err)
	}
	return srv, withCode(exUnavailable, err)
}

// serveControl serves the control socket until the function that it returns is
// called.
func (d *daemon) serveControl(ctx context.Context, srv *control.Server) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(ctx, served{d}); err != nil {
			d.log.Error("control socket closed", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
