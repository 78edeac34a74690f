package privsep

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"tabard/internal/privsep/fdpass"
	"tabard/internal/rpc"
)

// attachTimeout bounds the wait for the supervisor's first messages.
const attachTimeout = 30 * time.Second

// Child is a process' view of itself and of its supervisor.
type Child struct {
	hello     hello
	conn      *fdpass.Conn
	coding    *rpc.Coding
	listeners map[string]*os.File
	signals   chan os.Signal
	active    chan struct{}
	stopping  chan struct{}
	retiring  chan struct{}
	gone      chan struct{} // the supervisor is

	mu      sync.Mutex
	begun   bool // active is closed
	stopped bool // stopping is
	retired bool // retiring is
	calls   map[uint64]chan down
	seq     uint64
	layers  []Layer

	edges  sync.Mutex
	onEdge func(Endpoint)
	early  []Endpoint // edges that came before onEdge
	update func(decode func(any) error, done func())
	unseen *down // an update that came before OnUpdate
}

// Endpoint is one end of an edge to another process.
type Endpoint struct {
	Name   string // of the Edge
	Peer   string // the process at the other end; empty for the control socket's
	Client bool   // this end makes the calls, else it answers them
	Conn   net.Conn
}

// Attach takes over the control socket, as a process that the supervisor
// started has to before anything else. Signals that a terminal or a service
// manager sends to all processes are ignored from now on: the supervisor stops
// its processes in order.
func Attach() (*Child, error) {
	conn, err := fdpass.FromFile(os.NewFile(controlFD, "control socket"), maxUp, maxDown)
	if err != nil {
		return nil, fmt.Errorf("not started by the supervisor: %w", err)
	}
	coding, err := rpc.NewCoding()
	if err != nil {
		return nil, err
	}
	c := &Child{
		conn: conn, coding: coding, listeners: make(map[string]*os.File), signals: make(chan os.Signal, 1),
		active: make(chan struct{}), stopping: make(chan struct{}), retiring: make(chan struct{}), gone: make(chan struct{}), calls: make(map[uint64]chan down),
	}
	// Notify rather than Ignore: what the process executes must not inherit it.
	signal.Notify(c.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := c.greeted(); err != nil {
		return nil, fmt.Errorf("not started by the supervisor: %w", err)
	}
	nameProcess(titlePrefix + c.hello.Name)
	go c.listen()
	return c, nil
}

// greeted receives the hello and the listeners.
func (c *Child) greeted() error {
	if err := c.conn.SetDeadline(time.Now().Add(attachTimeout)); err != nil {
		return err
	}
	var m down
	if _, err := c.conn.RecvFile(&m); err != nil {
		return err
	}
	if m.Kind != downHello {
		return errors.New("the supervisor did not say hello")
	}
	if err := c.coding.Unmarshal(m.Data, &c.hello); err != nil {
		return err
	}
	for range c.hello.Listeners {
		var m down
		f, err := c.conn.RecvFile(&m)
		if err != nil {
			return err
		}
		if m.Kind != downListener || f == nil {
			return errors.New("a listener is missing")
		}
		c.listeners[m.Name] = f
	}
	return c.conn.SetDeadline(time.Time{})
}

// Name returns the name of the process.
func (c *Child) Name() string { return c.hello.Name }

// Candidate reports whether the process is to replace one that works: then a
// fault that can wait otherwise is a reason to fail.
func (c *Child) Candidate() bool { return c.hello.Candidate }

// Init decodes Spec.Init into v, a pointer.
func (c *Child) Init(v any) error {
	coding, err := rpc.NewTrustedCoding()
	if err != nil {
		return err
	}
	if err := coding.Unmarshal(c.hello.Init, v); err != nil {
		return fmt.Errorf("configuration of process %s: %w", c.hello.Name, err)
	}
	return nil
}

// Listener returns the listener called name. Each can be taken once.
func (c *Child) Listener(name string) (net.Listener, error) {
	f, ok := c.listeners[name]
	if !ok {
		return nil, fmt.Errorf("process %s has no listener %q", c.hello.Name, name)
	}
	delete(c.listeners, name)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listener %q: %w", name, err)
	}
	return l, nil
}

// OnEdge calls f for every edge of the process, those that are there already
// and those to come, one after the other. f must not block: it gives a client's
// end to its rpc.Link, and serves another in a goroutine. A second edge of the
// same name replaces the first, whose peer was started again.
func (c *Child) OnEdge(f func(Endpoint)) {
	c.edges.Lock()
	defer c.edges.Unlock()
	c.onEdge = f
	for _, e := range c.early {
		f(e)
	}
	c.early = nil
}

// Ready tells the supervisor that the process can do its work, and does it as
// soon as it is Active.
func (c *Child) Ready() error { return c.tell(up{Kind: upReady}) }

// Stopping is closed when the process has to stop: to finish what it is doing
// and end. The supervisor kills it if it takes too long.
func (c *Child) Stopping() <-chan struct{} { return c.stopping }

// Active is closed when the process is in force and may take work. One that is
// to replace another has to be Ready before: if it or one started with it cannot
// be, it never is active, but told to stop.
func (c *Child) Active() <-chan struct{} { return c.active }

// Retiring is closed when another process has taken this one's place: it takes
// no new work, says so with Rested, finishes what it has without haste, and ends.
// Stopping may follow.
func (c *Child) Retiring() <-chan struct{} { return c.retiring }

// Rested tells the supervisor that the process, which is Retiring, takes no new
// work any more.
func (c *Child) Rested() error { return c.tell(up{Kind: upRested}) }

// OnUpdate calls f for each Supervisor.Update, in order with the edges; of those
// that came before, for the last one. decode fills in a pointer. f must not
// block; it calls done, then or later, when the update is in force.
func (c *Child) OnUpdate(f func(decode func(v any) error, done func())) {
	c.edges.Lock()
	defer c.edges.Unlock()
	c.update = f
	if m := c.unseen; m != nil {
		c.unseen = nil
		c.tellUpdate(*m)
	}
}

// Fail tells the supervisor why the process is about to end.
func (c *Child) Fail(err error) {
	// Without a supervisor there is nobody to tell.
	_ = c.tell(up{Kind: upFailed, Text: truncate(err.Error(), maxWords)})
}

// ReportLayers adds to the measures that the status shows for this process.
func (c *Child) ReportLayers(layers ...Layer) error {
	c.mu.Lock()
	c.layers = append(c.layers, layers...)
	all := c.layers
	c.mu.Unlock()
	return c.tell(up{Kind: upLayers, Layers: all})
}

func (c *Child) tell(m up) error {
	if err := c.conn.Send(m, nil); err != nil {
		return fmt.Errorf("tell the supervisor: %w", err)
	}
	return nil
}

// Request asks the supervisor for something and decodes its answer into reply,
// a pointer or nil.
func (c *Child) Request(ctx context.Context, kind string, payload, reply any) error {
	data, err := c.coding.Marshal(payload)
	if err != nil {
		return fmt.Errorf("request %q: %w", kind, err)
	}
	c.mu.Lock()
	c.seq++
	id, answered := c.seq, make(chan down, 1)
	c.calls[id] = answered
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.calls, id)
	}()
	if err := c.tell(up{Kind: upRequest, ID: id, Text: kind, Data: data}); err != nil {
		return fmt.Errorf("request %q: %w", kind, err)
	}
	select {
	case m := <-answered:
		return c.answered(kind, m, reply)
	case <-ctx.Done():
		return fmt.Errorf("request %q: %w", kind, ctx.Err())
	case <-c.gone:
		return fmt.Errorf("request %q: supervisor: %w", kind, rpc.ErrUnavailable)
	}
}

func (c *Child) answered(kind string, m down, reply any) error {
	if m.Error != "" {
		return fmt.Errorf("request %q: %s", kind, m.Error)
	}
	if reply == nil {
		return nil
	}
	if err := c.coding.Unmarshal(m.Data, reply); err != nil {
		return fmt.Errorf("request %q: decode answer: %w", kind, err)
	}
	return nil
}
