package smtpd

import (
	"container/list"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"tabard/internal/config"
)

// door counts who is in, and closes.
type door struct {
	max, perAddr int

	draining  atomic.Bool   // set under mu, read without
	closed    bool          // no listener may be opened
	shutAll   chan struct{} // closed when no listener is left at a closed door
	empty     chan struct{} // closed when all have left it, too
	mu        sync.Mutex
	conns     map[*conn]struct{}
	addrs     map[netip.Prefix]int
	shaking   *list.List    // of *conn in a TLS handshake, who began first in front
	patience  time.Duration // how long a handshake is left alone when the house is full
	listeners map[net.Listener]*smtp.Server
	servers   []*smtp.Server
	refused   int       // since the last line that said so
	told      time.Time // when that was
}

func (d *door) init(max, perAddr int, patience time.Duration) {
	d.max, d.perAddr, d.patience = max, perAddr, patience
	d.conns = map[*conn]struct{}{}
	d.addrs = map[netip.Prefix]int{}
	d.shaking = list.New()
	d.listeners = map[net.Listener]*smtp.Server{}
	d.shutAll, d.empty = make(chan struct{}), make(chan struct{})
}

// open registers a listener; false when the server is already stopping.
func (d *door) open(srv *smtp.Server, l net.Listener) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining.Load() || d.closed {
		return false
	}
	d.listeners[l] = srv
	d.servers = append(d.servers, srv)
	return true
}

func (d *door) shut(l net.Listener) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.listeners, l)
	d.checkEmpty()
}

// Why a connection is not let in.
const (
	refusedStopping = "421 4.3.2 Service shutting down\r\n"
	refusedFull     = "421 4.3.2 Too many connections\r\n"
	refusedAddress  = "421 4.7.0 Too many connections from your address\r\n"
)

// enter lets a connection in, or says why not.
func (d *door) enter(c *conn) (refusal string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.draining.Load():
		return refusedStopping
	case len(d.conns) >= d.max && !d.makeRoom():
		return refusedFull
	case c.group.IsValid() && d.addrs[c.group] >= d.perAddr:
		return refusedAddress
	}
	d.conns[c] = struct{}{}
	if c.group.IsValid() {
		d.addrs[c.group]++
	}
	return ""
}

func (d *door) leave(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(c)
}

// remove is leave; the caller holds mu.
func (d *door) remove(c *conn) {
	if _, in := d.conns[c]; !in {
		return
	}
	delete(d.conns, c)
	if d.addrs[c.group]--; d.addrs[c.group] <= 0 {
		delete(d.addrs, c.group)
	}
	d.checkEmpty()
}

// shake says that a connection begins a TLS handshake.
func (d *door) shake(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.shaking, c.shakes = d.shaking.PushBack(c), time.Now()
}

var errGaveWay = errors.New("gave way to another connection, because the server is full")

// shook says that the handshake is over, and returns errGaveWay if the
// connection is, too.
func (d *door) shook(c *conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.shaking == nil {
		return errGaveWay
	}
	d.shaking.Remove(c.shaking)
	c.shaking = nil
	return nil
}

// makeRoom closes the connection whose handshake has gone on for longest, if it
// is too long for an honest one: clients that begin TLS and stall would keep
// everybody out otherwise. The caller holds mu.
func (d *door) makeRoom() bool {
	oldest := d.shaking.Front()
	if oldest == nil {
		return false
	}
	c, ok := oldest.Value.(*conn)
	if !ok || time.Since(c.shakes) < d.patience {
		return false
	}
	d.shaking.Remove(oldest)
	c.shaking = nil
	_ = c.raw.Close()
	d.remove(c)
	return true
}

// close makes the gates close their listeners when they have let in those who
// wait outside.
func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for l := range d.listeners {
		if w, ok := l.(interface{ SetDeadline(time.Time) error }); !ok || w.SetDeadline(time.Unix(1, 0)) != nil {
			_ = l.Close()
		}
	}
	d.checkEmpty()
}

func (d *door) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// checkEmpty sees whether the last one has left. A listener that is still served
// may have a connection in its hands. The caller holds mu.
func (d *door) checkEmpty() {
	if !d.closed || len(d.listeners) > 0 {
		return
	}
	closeOnce(d.shutAll)
	if len(d.conns) == 0 {
		closeOnce(d.empty)
	}
}

func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// drain closes the listeners, wakes the idle sessions and returns the servers
// to wait for.
func (d *door) drain() []*smtp.Server {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining.Store(true)
	for l := range d.listeners {
		_ = l.Close()
	}
	for c := range d.conns {
		c.wake()
	}
	return d.servers
}

// cut closes every socket that is left.
func (d *door) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		_ = c.raw.Close()
	}
}

// count adds one refusal and says how many to report now: a flood of
// connections must not become a flood of log lines.
func (d *door) count(now time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused++
	if now.Sub(d.told) < time.Second {
		return 0
	}
	n := d.refused
	d.refused, d.told = 0, now
	return n
}

// gate is the listener that go-smtp sees: connections come out wrapped, and
// those above the limits are turned away before it sees them.
type gate struct {
	net.Listener
	srv  *Server
	ln   *Listener
	last int // connections let in at a closed door
}

// maxBacklog bounds the connections that are let in at a closed door: somebody
// else may accept on the same socket, and clients may come without an end.
const maxBacklog = 4096

// accept returns the next connection; at a closed door those that the kernel
// has ready, and then closes the socket.
func (g *gate) accept() (net.Conn, error) {
	raw, err := g.Listener.Accept()
	if err == nil || !g.srv.door.isClosed() {
		return raw, err
	}
	if g.last++; g.last <= maxBacklog {
		if raw := waiting(g.Listener); raw != nil {
			return raw, nil
		}
	}
	_ = g.Listener.Close()
	return nil, net.ErrClosed
}

// Accept waits for the next connection that is let in.
func (g *gate) Accept() (net.Conn, error) {
	for {
		raw, err := g.accept()
		if err != nil {
			return nil, err
		}
		c := newConn(g.srv, g.ln, raw)
		refusal := g.srv.door.enter(c)
		if refusal == "" {
			g.srv.count.open.Add(1)
			g.srv.count.sessions.Add(1)
			c.start()
			return c, nil
		}
		g.srv.count.turnedAway.Add(1, refusalWords()[refusal])
		g.refuse(raw, refusal)
	}
}

// refuse writes one line, which a fresh socket takes without waiting, and
// closes.
func (g *gate) refuse(raw net.Conn, line string) {
	now := time.Now()
	_ = raw.SetWriteDeadline(now.Add(100 * time.Millisecond))
	if g.ln.TLS != config.TLSImplicit {
		_, _ = raw.Write([]byte(line))
	}
	_ = raw.Close()
	if n := g.srv.door.count(now); n > 0 {
		g.srv.log.Warn("smtp connections refused", slog.Int("count", n),
			slog.String("address", remoteText(raw)), slog.String("result", line[:len(line)-2]))
	}
}
