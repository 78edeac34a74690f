package privsep

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Main runs a process: it attaches, calls run, and returns the exit status for
// os.Exit: ExitUnconfined if run failed with ErrUnconfined, else 1 if it failed.
// The context of run ends when the process has to stop. An error of run becomes
// the supervisor's reason for its end.
func Main(run func(ctx context.Context, c *Child) error) int {
	c, err := Attach()
	if err != nil {
		fmt.Fprintf(os.Stderr, "tabard: %v\n", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-c.Stopping()
		cancel()
	}()
	if err := run(ctx, c); err != nil {
		c.Fail(err)
		if errors.Is(err, ErrUnconfined) {
			return ExitUnconfined
		}
		return 1
	}
	return 0
}

// listen takes the supervisor's messages until it is gone.
func (c *Child) listen() {
	defer c.orphaned()
	for {
		var m down
		f, err := c.conn.RecvFile(&m)
		if err != nil {
			c.conn.Discard()
			return
		}
		switch {
		case m.Kind == downStop:
			c.stop()
		case m.Kind == downActivate:
			c.activate()
		case m.Kind == downRetire:
			c.retire()
		case m.Kind == downUpdate:
			c.updated(m)
		case m.Kind == downAnswer:
			c.deliver(m)
		case m.Kind == downEdge && f != nil:
			c.edge(m, f)
			f = nil
		}
		if f != nil {
			f.Close()
		}
	}
}

func (c *Child) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped {
		c.stopped = true
		close(c.stopping)
	}
}

func (c *Child) activate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		c.begun = true
		close(c.active)
	}
}

func (c *Child) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.retired {
		c.retired = true
		close(c.retiring)
	}
}

func (c *Child) updated(m down) {
	c.edges.Lock()
	defer c.edges.Unlock()
	if c.update == nil {
		c.unseen = &m
		return
	}
	c.tellUpdate(m)
}

func (c *Child) tellUpdate(m down) {
	decode := func(v any) error { return c.coding.Unmarshal(m.Data, v) }
	// Without a supervisor nobody waits for it.
	c.update(decode, func() { _ = c.tell(up{Kind: upUpdated, ID: m.ID}) })
}

// deliver hands an answer to the request that waits for it, if any still does.
func (c *Child) deliver(m down) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answered, ok := c.calls[m.ID]; ok {
		answered <- m
		delete(c.calls, m.ID)
	}
}

func (c *Child) edge(m down, f *os.File) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return // the peer sees its end close
	}
	e := Endpoint{Name: m.Name, Peer: m.Peer, Client: m.Client, Conn: conn}
	c.edges.Lock()
	defer c.edges.Unlock()
	if c.onEdge == nil {
		c.early = append(c.early, e)
		return
	}
	c.onEdge(e)
}

// orphanGrace is how long a process goes on without its supervisor.
const orphanGrace = time.Second

// orphaned stops the process when the supervisor is gone, and soon ends it for
// sure: the others stop at the same moment, so what it waits for may never come,
// and the next supervisor needs its sockets.
func (c *Child) orphaned() {
	close(c.gone)
	c.stop()
	time.AfterFunc(orphanGrace, func() { os.Exit(1) })
}
