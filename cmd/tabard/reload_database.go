package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"tabard/internal/privsep"
	"tabard/internal/sandbox"
)

// maxConfig bounds a configuration from a database, in bytes.
const maxConfig = 4 << 20

// run runs the server on the configuration of a file or a database.
func run(ctx context.Context, src confSource, o runOptions) error {
	if ctx == nil {
		ctx = context.Background()
	}
	src, err := src.absolute()
	if err != nil {
		return err
	}
	d, err := newDaemon(src, o)
	if err != nil {
		return err
	}
	if src.database() {
		return d.runFollowing(ctx)
	}
	l, err := src.load(ctx)
	if err != nil {
		return err
	}
	return d.run(ctx, l, nil)
}

// runFollowing waits until the database has told its configuration, runs the
// server on it, and follows its changes.
func (d *daemon) runFollowing(ctx context.Context) error {
	// RunUntilSignal sees the signals too, once there is something to stop.
	ctx, unsignal := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer unsignal()
	// Before the first configuration is there, there is nothing to reload.
	early := make(chan os.Signal, 1)
	signal.Notify(early, syscall.SIGHUP)
	defer signal.Stop(early)
	f := &follower{src: d.src, news: make(chan struct{}, 1)}
	spec, err := f.spec(d.opts)
	if err != nil {
		return err
	}
	if f.sup, err = privsep.New([]privsep.Spec{spec}, nil, privsep.Options{Log: d.log, Backoff: privsep.Backoff{Max: 2 * time.Second}}); err != nil {
		return err
	}
	d.follow = f
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- f.sup.Run(reading) }()
	defer func() {
		stop()
		<-ended
	}()
	d.log.Info("waiting for the configuration", "config", d.src.String())
	select {
	case <-f.news:
	case err := <-ended:
		ended <- err
		return withCode(exConfig, err)
	case <-ctx.Done():
		return nil
	}
	l, err := f.load()
	if err != nil {
		return err
	}
	return d.run(ctx, l, nil)
}

// follower is the supervisor's side of the process config.
type follower struct {
	src  confSource
	sup  *privsep.Supervisor
	news chan struct{}

	mu    sync.Mutex
	part  []byte
	known bool // it has told anything
	text  confText
	fault string
}

// spec describes the process.
func (f *follower) spec(o runOptions) (privsep.Spec, error) {
	spec := privsep.Spec{
		Name: procConfig, Undumpable: true, OnRequest: f.onRequest,
		Sandbox: sandbox.BestEffort, // it is there before the configuration is
		Init:    configInit{common{Log: o.log, Profile: os.Getenv(profileEnv)}, f.src.path, f.src.name},
	}
	if os.Getuid() != 0 {
		return spec, nil
	}
	cred, err := privsep.LookupUser(o.user)
	if err != nil {
		return spec, exitf(exConfig, "process %s: %w; make it with `useradd --system --no-create-home --shell /usr/sbin/nologin %s`, or name another with --config-user", procConfig, err, o.user)
	}
	if cred.UID != 0 {
		spec.Credential = cred
	}
	return spec, nil
}

// onRequest takes a piece of a configuration.
func (f *follower) onRequest(_ context.Context, r privsep.Request) (any, error) {
	if r.Kind != askConfig {
		return nil, fmt.Errorf("unknown request %q", r.Kind)
	}
	var p configPiece
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.First {
		f.part = nil
	}
	if len(f.part)+len(p.Data) > maxConfig {
		f.part = nil
		p = configPiece{Fault: fmt.Sprintf("config %s: more than %d bytes", p.Name, maxConfig), Last: true}
	}
	f.part = append(f.part, p.Data...)
	if !p.Last {
		return nil, nil
	}
	f.told(p, f.part)
	f.part = nil
	return nil, nil
}

// told takes over a text, or why there is none: then the one before stays. A
// process that was started again tells what is known already. The caller holds mu.
func (f *follower) told(p configPiece, data []byte) {
	text := f.text
	if p.Fault == "" {
		text = confText{p.Name, string(data)}
	}
	if f.known && f.fault == p.Fault && f.text == text {
		return
	}
	f.known, f.fault, f.text = true, p.Fault, text
	signalOnce(f.news)
}

// load parses what the database told last.
func (f *follower) load() (loaded, error) {
	f.mu.Lock()
	text, fault := f.text, f.fault
	f.mu.Unlock()
	if fault != "" {
		return loaded{}, withCode(exConfig, errors.New(fault))
	}
	return f.src.parse(text)
}
