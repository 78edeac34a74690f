package main

import (
	"context"
	"errors"
	"time"

	"tabard/internal/deliver"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/mta"
	"tabard/queue"
)

type mtaInit struct {
	Common common
	Config mtaConfig
	Reach  mtaReach
	Paused bool
}

func runMTA(ctx context.Context, c *privsep.Child) error {
	var in mtaInit
	log, end, err := initialise(c, &in, &in.Common)
	if err != nil {
		return err
	}
	defer end()
	toLookup, toQueue := rpc.NewLink(procLookup), rpc.NewLink(procQueue)
	feed := newFeed(toLookup, procMTA, in.Common, in.Common.Events, log)
	defer feed.Close()
	m, err := in.Config.open(lookup.NewOutbound(toLookup), queue.NewRemoteWorker(toQueue), feed, log)
	if err != nil {
		return err
	}
	if _, err := c.DropPrivileges(in.Reach.profile()); err != nil {
		return err
	}
	c.OnEdge(func(e privsep.Endpoint) {
		switch {
		case e.Name == edgeControl:
			serve(context.WithoutCancel(ctx), log, e, func(s *rpc.Server) (func(), error) {
				return nothing, errors.Join(mta.RegisterRoutes(s, m), mta.RegisterExplainer(s, m))
			})
		case !setLinks(e, map[string]*rpc.Link{edgeOutbound: toLookup, edgeRelay: toQueue}):
			serveCounts(context.WithoutCancel(ctx), log, e, m.Counts)
		}
	})
	if err := c.Ready(); err != nil {
		return err
	}
	if in.Paused {
		select {
		case <-ctx.Done():
		case <-c.Retiring():
		}
		return nil
	}
	select {
	case <-c.Active():
	case <-ctx.Done():
		return nil
	}
	running, done := context.WithCancel(ctx)
	defer done()
	go func() {
		select {
		case <-c.Retiring():
			m.Retire(running)
			rested(c, log)
		case <-running.Done():
		}
	}()
	return ended(ctx, m.Run(ctx))
}

// ended returns what made a component end, unless that was the stop itself.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

type deliverInit struct {
	Common common
	Means  deliverMeans
}

// deliverIdle is how long a deliver process waits for more mail of its user.
const deliverIdle = 20 * time.Second

func runDeliver(ctx context.Context, c *privsep.Child) error {
	var in deliverInit
	log, end, err := initialise(c, &in, &in.Common)
	if err != nil {
		return err
	}
	defer end()
	if _, err := c.DropPrivileges(in.Means.profile()); err != nil {
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
