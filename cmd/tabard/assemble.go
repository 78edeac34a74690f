package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"tabard/backends"
	"tabard/internal/config"
	"tabard/internal/dns"
	"tabard/internal/eventlog"
	"tabard/lookup"
	"tabard/mta"
	"tabard/queue"
	queuesqlite "tabard/queue/sqlite"
	"tabard/table"
)

// The components are put together here, once for the daemon's processes and for
// tests that run them in one process: they meet only through lookup.Client and
// queue's interfaces.

// dnsConfig is what a process that asks DNS must know before it gives up the
// file system.
type dnsConfig struct {
	Servers []string
}

// systemDNS returns the servers of the configuration, or else the system's.
func systemDNS(cfg *config.Config) (dnsConfig, error) {
	if len(cfg.Resolvers) > 0 {
		return dnsConfig{cfg.Resolvers}, nil
	}
	servers, err := dns.SystemServers()
	if err != nil {
		return dnsConfig{}, fmt.Errorf("name servers: %w (name one with `resolver ADDRESS`)", err)
	}
	return dnsConfig{servers}, nil
}

// resolver makes the process' resolver; it reads the hosts file.
func (c dnsConfig) resolver() (*dns.Resolver, error) {
	hosts, err := dns.LoadHosts("/etc/hosts")
	if err != nil {
		return nil, err
	}
	return dns.New(dns.Config{Servers: c.Servers, Hosts: hosts}), nil
}

// openFunc opens the backend of a declared table.
type openFunc func(context.Context, config.Table) (table.Backend, error)

// openTable opens them as the configuration says.
func openTable(cfg *config.Config, log *slog.Logger) openFunc {
	opts := table.Options{Log: log, Delim: cfg.SMTP.SubAddrDelim}
	return func(ctx context.Context, t config.Table) (table.Backend, error) {
		return backends.Open(ctx, t, opts)
	}
}

// openLookup makes the lookup service.
func openLookup(ctx context.Context, cfg *config.Config, hostname string, names dnsConfig, open openFunc, log *slog.Logger) (*lookup.Service, error) {
	resolver, err := names.resolver()
	if err != nil {
		return nil, err
	}
	return lookup.New(ctx, lookup.Options{
		Config: cfg, Open: open, Hostname: hostname, Logger: log, Resolver: resolver, OwnUID: os.Getuid(),
	})
}

// queueConfig is what the queue process is told.
type queueConfig struct {
	Path     string
	Hostname string
	Queue    config.Queue
	Bounce   config.Bounce
	// MaxDeferred is `mta max-deferred`: it is about what waits in the queue.
	MaxDeferred int
	Keys        secretText // what is in the file of queue encryption; empty: there is none
	Events      bool       // there is an event log
	Stages      bool       // and it has the stages of messages
}

func newQueueConfig(cfg *config.Config, hostname string) queueConfig {
	path := cfg.Queue.Source
	if path == "" {
		path = defaultQueue
	}
	return queueConfig{
		Path: path, Hostname: hostname, Queue: cfg.Queue, Bounce: cfg.Bounce, MaxDeferred: cfg.MTA.MaxDeferred,
		Events: cfg.LogSQL.Table != "", Stages: cfg.LogSQL.Stages,
	}
}

// dir is the spool: all that the queue process has of the file system.
func (c queueConfig) dir() string { return filepath.Dir(c.Path) }

// rules are what can change while the queue runs.
func (c queueConfig) rules() queue.Rules {
	r := queue.Rules{
		Hostname: c.Hostname, TTL: c.Queue.TTL, Retry: c.Queue.Retry, WarnIntervals: c.Bounce.WarnIntervals,
		MaxDeferred: c.MaxDeferred, Stages: c.Stages,
	}
	if r.MaxDeferred == 0 {
		r.MaxDeferred = -1
	}
	return r
}

// openStore opens the queue's database, and makes it when there is none. One that is
// damaged is opened for inspection.
func (c queueConfig) openStore(ctx context.Context, config string, log *slog.Logger) (queue.Store, error) {
	if err := os.MkdirAll(c.dir(), 0o700); err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	store, err := queuesqlite.Open(ctx, c.Path)
	if !errors.Is(err, queue.ErrCorrupt) {
		return store, err
	}
	err = fmt.Errorf("%w; %s", err, toRepair(config))
	log.Error("the queue is damaged: mail is neither accepted nor delivered, what can be read of it can be looked at", "error", err)
	return queuesqlite.Inspect(ctx, c.Path, err)
}

// toRepair tells how a damaged queue is repaired.
func toRepair(config string) string {
	return "to repair it, stop tabard and run: tabard queue repair -c " + config
}

// spawnFunc starts a deliver process for a user.
type spawnFunc func(ctx context.Context, uid, gid int) error

// open makes the queue on its store.
func (c queueConfig) open(ctx context.Context, store queue.Store, local lookup.Local, spawn spawnFunc, events eventlog.Recorder, log *slog.Logger) (*queue.Queue, error) {
	coder, err := c.coder()
	if err != nil {
		return nil, err
	}
	r := c.rules()
	return queue.New(ctx, store, local, queue.Options{
		Logger: log, Events: events, Hostname: r.Hostname, TTL: r.TTL, Retry: r.Retry,
		WarnIntervals: r.WarnIntervals, MaxDeferred: r.MaxDeferred, Stages: r.Stages, Spawn: spawn, Coder: coder,
	})
}

// mtaConfig is what the mta process is told.
type mtaConfig struct {
	Hostname string
	DNS      dnsConfig
	Limits   []config.MTALimit
}

// open makes the mail transfer agent. It reads the hosts file.
func (c mtaConfig) open(out lookup.Outbound, worker queue.Worker, events eventlog.Recorder, log *slog.Logger) (*mta.MTA, error) {
	resolver, err := c.DNS.resolver()
	if err != nil {
		return nil, err
	}
	all, own := mtaLimits(c.Limits)
	return mta.New(mta.Config{
		Hostname: c.Hostname, Addresses: ownAddresses(), Resolver: resolver, Logger: log, Events: events, Limits: all, ForDomain: own,
	}, out, worker), nil
}

// ownAddresses are this machine's, for MX loop detection.
func ownAddresses() []netip.Addr {
	var own []netip.Addr
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own
}
