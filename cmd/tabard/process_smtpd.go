package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
	"tabard/smtpd"
)

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

// drain bounds how long sessions and deliveries may go on after a stop.
const drain = 20 * time.Second

// take takes over the sockets, in the order of Listeners.
func (in *smtpdInit) take(c *privsep.Child) ([]net.Listener, error) {
	var sockets []net.Listener
	for _, bound := range in.Listeners {
		l, err := c.Listener(bound.Name)
		if err != nil {
			return nil, err
		}
		sockets = append(sockets, l)
	}
	return sockets, nil
}

func runSMTPD(ctx context.Context, c *privsep.Child) error {
	var in smtpdInit
	log, end, err := initialise(c, &in, &in.Common)
	if err != nil {
		return err
	}
	defer end()
	toLookup, toQueue := rpc.NewLink(procLookup), rpc.NewLink(procQueue)
	srv, err := smtpd.New(in.Config, lookup.NewInbound(toLookup), queue.NewRemote(toQueue), log)
	if err != nil {
		return err
	}
	feed := newFeed(toLookup, procSMTPD, in.Common, in.Common.Events, log)
	defer feed.Close()
	srv.RecordTo(feed)
	c.OnEdge(func(e privsep.Endpoint) {
		if !setLinks(e, map[string]*rpc.Link{edgeInbound: toLookup, edgeSubmit: toQueue}) {
			serveCounts(context.WithoutCancel(ctx), log, e, srv.Counts)
		}
	})
	if _, err := c.DropPrivileges(smtpdProfile()); err != nil {
		return err
	}
	sockets, err := in.take(c)
	if err != nil {
		return err
	}
	if err := c.Ready(); err != nil {
		return err
	}
	select {
	case <-c.Active():
	case <-ctx.Done():
		return nil
	}
	failed := make(chan error, len(sockets))
	for i, l := range sockets {
		bound := in.Listeners[i]
		go func() {
			if err := srv.Serve(context.WithoutCancel(ctx), bound.Index, l); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("listener %s: %w", bound.Name, err)
			}
		}()
	}
	select {
	case err := <-failed:
		return err
	case <-c.Retiring():
		srv.Retire(ctx, func() { rested(c, log) })
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	return srv.Shutdown(patience)
}
