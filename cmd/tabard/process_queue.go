package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"tabard/internal/count"
	"tabard/internal/privsep"
	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
)

type queueInit struct {
	Common common
	Config queueConfig
	Paused bool // nothing is delivered locally
}

// askDeliver is queue's request to the supervisor for a deliver process.
const askDeliver = "deliver"

// deliverAs is the payload of askDeliver; -1 is the server's own mail user.
type deliverAs struct{ UID, GID int }

func runQueue(ctx context.Context, c *privsep.Child) error {
	var in queueInit
	log, end, err := initialise(c, &in, &in.Common)
	if err != nil {
		return err
	}
	defer end()
	// What SQLite sorts and does not keep in memory goes there, too.
	if err := os.Setenv("SQLITE_TMPDIR", in.Config.dir()); err != nil {
		return err
	}
	if _, err := c.DropPrivileges(queueProfile(in.Config)); err != nil {
		return err
	}
	store, err := in.Config.openStore(ctx, in.Common.Config, log)
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
	feed := newFeed(toLookup, procQueue, in.Common, in.Config.Events, log)
	defer feed.Close()
	q, err := in.Config.open(ctx, store, lookup.NewLocal(toLookup), spawn, feed, log)
	if err != nil {
		return err
	}
	c.OnUpdate(func(decode func(any) error, done func()) {
		var changed queueConfig
		if err := decode(&changed); err != nil {
			log.Error("changed configuration cannot be read", "error", err)
			return
		}
		feed.Switch(changed.Events)
		coder, err := changed.coder()
		if err != nil {
			log.Error("keys of the queue cannot be read: the old ones stay", "error", err)
		} else {
			q.SetCoder(coder)
		}
		q.SetRules(changed.rules(), done)
	})
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
			release, err := queue.RegisterAdmin(s, q)
			return release, errors.Join(err, queue.RegisterBodies(s, q))
		case edgeMetrics:
			return nothing, count.Register(s, q.Counts)
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
