package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"tabard/internal/config"
	"tabard/internal/control"
	"tabard/internal/privsep"
	"tabard/smtpd"
)

func newReload(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Make the running server read its configuration again",
		Long: `Reload makes the running server read its configuration again, as SIGHUP does. It
is put in force whole, or, if anything is wrong with it, not at all: then the
fault is printed and the old configuration stays. Sessions that are open go on
under the old one until they end; none is dropped.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.dialControl()
			if err != nil {
				return err
			}
			err = c.Reload(context.Background())
			if refused := (*control.RefusedError)(nil); errors.As(err, &refused) {
				return exitf(exConfig, "not reloaded: %s", refused.Reason)
			}
			if err != nil {
				return withCode(exUnavailable, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "reloaded")
			return err
		},
	}
}

// plan is a configuration with all that follows from it.
type plan struct {
	loaded
	at      time.Time
	host    string
	ids     map[string]identity
	names   dnsConfig
	queue   queueConfig
	sockets sockets
	metrics *os.File // its listening socket; nil: none is wanted
}

// prepare checks a configuration. Its sockets are not open yet.
func (d *daemon) prepare(l loaded) (*plan, error) {
	if err := refuse(l.cfg); err != nil {
		return nil, err
	}
	if _, _, err := eventTable(l.cfg); err != nil {
		return nil, err
	}
	withSocket(l.cfg)
	p := &plan{loaded: l, at: time.Now(), host: serverName(l.cfg, d.src.path)}
	var err error
	if p.ids, err = identities(l.cfg); err != nil {
		return nil, err
	}
	if p.names, err = systemDNS(l.cfg); err != nil {
		d.log.Warn("no DNS", "error", err)
	}
	p.queue = newQueueConfig(l.cfg, p.host)
	if p.queue.Path, err = filepath.Abs(p.queue.Path); err != nil {
		return nil, err
	}
	if p.queue.Keys, err = queueKeys(l.cfg); err != nil {
		return nil, err
	}
	if old := d.plan(); old != nil {
		if err := old.permits(p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// permits names what in next can only be changed by a restart.
func (p *plan) permits(next *plan) error {
	var fixed []string
	for what, same := range map[string]bool{
		"queue":   p.queue.Path == next.queue.Path,
		"control": controlSocket(p.cfg) == controlSocket(next.cfg),
		"sandbox": sandboxMode(p.cfg) == sandboxMode(next.cfg),
		"process": slices.EqualFunc(p.cfg.Processes, next.cfg.Processes, sameProcess),
	} {
		if !same {
			fixed = append(fixed, what)
		}
	}
	if len(fixed) == 0 {
		return nil
	}
	slices.Sort(fixed)
	return exitf(exConfig, "a change of %s needs a restart", strings.Join(fixed, " and of "))
}

func sameProcess(a, b config.Process) bool {
	a.Pos, b.Pos = config.Pos{}, config.Pos{}
	return a == b
}

func (d *daemon) install(p *plan) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = p
}

func (d *daemon) queueInit(p *plan) queueInit {
	return queueInit{d.commonOf(p), p.queue, d.paused("mda")}
}

// replaceable describes the processes that a reload starts anew.
func (d *daemon) replaceable(p *plan) []privsep.Spec {
	c := d.commonOf(p)
	specs := []privsep.Spec{
		{Name: procSMTPD, Listeners: p.sockets.files, Init: smtpdInit{c, smtpd.FromConfig(p.cfg, p.host), p.sockets.bound}},
		{Name: procMTA, Init: mtaInit{c, mtaConfig{p.host, p.names, p.cfg.MTA.Limits}, newMTAReach(p.cfg, d.log), d.paused("mta")}},
		{Name: procLookup, Init: lookupInit{c, *p.cfg, p.names}},
	}
	for i := range specs {
		specs[i] = p.confined(specs[i])
		specs[i].Replaceable = true
	}
	return specs
}

// confined says who a process becomes, and where, and closes its memory: through
// every one of them pass passwords, or mail.
func (p *plan) confined(s privsep.Spec) privsep.Spec {
	id := p.ids[s.Name]
	s.Credential, s.Chroot, s.Sandbox, s.Undumpable = id.cred, id.chroot, sandboxMode(p.cfg), true
	return s
}

// reload reads the configuration again and puts it in force, or says why not.
func (d *daemon) reload(ctx context.Context) error {
	return d.replace(ctx, func() (loaded, error) {
		if d.follow != nil {
			return d.follow.load()
		}
		return d.src.load(ctx)
	})
}

func (d *daemon) replace(ctx context.Context, load func() (loaded, error)) error {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	p, err := d.swap(ctx, load)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault = ""; err != nil {
		d.fault = err.Error()
		d.log.Error("configuration not reloaded, the old one stays in force", "config", d.src.String(), "error", err)
		return err
	}
	d.log.Info("configuration reloaded", "config", d.src.String(), "hash", p.hash)
	return nil
}

// swap starts the processes of the configuration that load returns in place of
// those that run.
func (d *daemon) swap(ctx context.Context, load func() (loaded, error)) (*plan, error) {
	l, err := unlessEnded(ctx, load)
	if err != nil {
		return nil, err
	}
	old := d.plan()
	p, err := d.prepare(l)
	if err != nil {
		return nil, err
	}
	if p.sockets, err = bindAll(p.cfg, old.sockets.files); err != nil {
		return nil, err
	}
	changed := privsep.Change{Process: procQueue, Init: d.queueInit(p), Update: p.queue}
	if p.metrics, err = bindMetrics(p.cfg, old); err == nil {
		err = d.sup.Replace(ctx, d.replaceable(p), changed)
	}
	if err != nil {
		closeAll(p.sockets.fresh)
		p.closeMetrics(old)
		return nil, err
	}
	d.moveMetrics(ctx, old, p)
	d.install(p)
	return p, nil
}

// unlessEnded is load, but for a file system that does not answer: it must not
// keep the server from stopping.
func unlessEnded(ctx context.Context, load func() (loaded, error)) (loaded, error) {
	type result struct {
		loaded
		err error
	}
	done := make(chan result, 1)
	go func() {
		l, err := load()
		done <- result{l, err}
	}()
	select {
	case r := <-done:
		return r.loaded, r.err
	case <-ctx.Done():
		return loaded{}, ctx.Err()
	}
}

// followSource reloads at SIGHUP and at changes of the database until the
// function that it returns is called.
func (d *daemon) followSource(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	var news <-chan struct{}
	if d.follow != nil {
		news = d.follow.news
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-hup:
			case <-news:
			case <-ctx.Done():
				return
			}
			_ = d.reload(ctx) // logged
		}
	}()
	return func() {
		signal.Stop(hup)
		cancel()
		<-done
	}
}

// served is what the control socket gives access to.
type served struct{ d *daemon }

// Status implements control.Supervisor.
func (s served) Status() privsep.Status {
	st := s.d.sup.Status()
	st.Processes = append([]privsep.ProcessStatus{s.d.self}, st.Processes...)
	if f := s.d.follow; f != nil {
		st.Processes = append(st.Processes, f.sup.Status().Processes...)
	}
	st.Processes = withUsage(st.Processes)
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	p := s.d.now
	st.Config = &privsep.ConfigStatus{Source: s.d.src.String(), Loaded: p.at, Hash: p.hash, Fault: s.d.fault}
	return st
}

// Connect implements control.Supervisor.
func (s served) Connect(process, edge string) (*os.File, error) {
	return s.d.sup.Connect(process, edge)
}

// Reload implements control.Supervisor.
func (s served) Reload(ctx context.Context) error { return s.d.reload(ctx) }
