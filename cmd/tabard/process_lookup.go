package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"tabard/internal/config"
	"tabard/internal/count"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/table"
)

type lookupInit struct {
	Common common
	Config config.Config
	DNS    dnsConfig
}

// opener opens tables, and knows what went wrong at first. A server starts
// without a table and opens it when it can; a reload that would lose one is
// refused.
type opener struct {
	open openFunc

	mu     sync.Mutex
	done   bool
	failed []error
}

// Open opens one table.
func (o *opener) Open(ctx context.Context, t config.Table) (table.Backend, error) {
	b, err := o.open(ctx, t)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil && !o.done {
		o.failed = append(o.failed, err)
	}
	return b, err
}

// fault returns why tables could not be opened until now.
func (o *opener) fault() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done = true
	return errors.Join(o.failed...)
}

func runLookup(ctx context.Context, c *privsep.Child) error {
	var in lookupInit
	log, end, err := initialise(c, &in, &in.Common)
	if err != nil {
		return err
	}
	defer end()
	// Key and certificate files are read now, while that is still allowed.
	tables := &opener{open: openTable(&in.Config, log)}
	svc, err := openLookup(ctx, &in.Config, in.Common.Host, in.DNS, tables.Open, log)
	if err != nil {
		return err
	}
	if err := tables.fault(); err != nil && c.Candidate() {
		return errors.Join(err, svc.Close())
	}
	defer func() { _ = svc.Close() }()
	events, err := openEvents(&in.Config, log)
	if err != nil {
		return err
	}
	defer events.close()
	if _, err := c.DropPrivileges(tablesProfile(in.Config.Tables)); err != nil {
		return err
	}
	// Sessions of other processes end before this one, so edges are served to
	// the end and not only until the stop.
	served, cut := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { svc.WatchExpiry(served) })
	background.Go(func() { events.prune(served) })
	defer func() {
		cut()
		background.Wait()
	}()
	c.OnEdge(func(e privsep.Endpoint) {
		serve(served, log, e, func(s *rpc.Server) (func(), error) {
			switch e.Name {
			case edgeInbound:
				return nothing, errors.Join(lookup.RegisterInbound(s, svc), events.Register(s, procSMTPD))
			case edgeOutbound:
				return nothing, errors.Join(lookup.RegisterOutbound(s, svc), events.Register(s, procMTA))
			case edgeLocal:
				return nothing, errors.Join(lookup.RegisterLocal(s, svc), events.Register(s, procQueue))
			case edgeControl:
				return nothing, errors.Join(lookup.RegisterAdmin(s, svc), events.RegisterStatus(s))
			case edgeMetrics:
				none := func(context.Context) ([][]float64, error) { return nil, nil }
				return nothing, errors.Join(count.Register(s, none), lookup.RegisterMeter(s, svc))
			}
			return nil, fmt.Errorf("nobody may ask lookup by %q", e.Name)
		})
	})
	if err := c.Ready(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-c.Retiring(): // nobody is left who asks
	}
	return nil
}
