package smtpd

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"tabard/internal/address"
	"tabard/lookup"
)

const unknownName = "<unknown>"

// peer is the other end of a connection, and what its name is.
type peer struct {
	socket bool // a local program
	remote netip.AddrPort
	local  netip.AddrPort

	// ready is closed when name and ours are there; nil when they were from the
	// start.
	ready chan struct{}
	name  string
	ours  string // our own name towards this peer, when it depends on that
}

func (p *peer) init(ln *Listener, raw net.Conn) {
	p.remote, p.local = addrPort(raw.RemoteAddr()), addrPort(raw.LocalAddr())
	p.socket = ln.Socket || !p.remote.IsValid()
	if p.socket || p.remote.Addr().IsLoopback() {
		p.name = "localhost"
	}
}

// addrPort returns a TCP address with IPv4-mapped addresses as IPv4, or nothing.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// group is what counts as one client: an IPv4 address, or the IPv6 /64 that one
// customer usually has. Local sockets have none.
func (p *peer) group() netip.Prefix {
	if p.socket {
		return netip.Prefix{}
	}
	bits := 32
	if p.remote.Addr().Is6() {
		bits = 64
	}
	g, err := p.remote.Addr().Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return g
}

// text is the client's address for people.
func (p *peer) text() string {
	if p.socket {
		return "local"
	}
	return p.remote.Addr().String()
}

// remoteText is the address of a connection that was not let in.
func remoteText(raw net.Conn) string {
	var p peer
	p.init(&Listener{}, raw)
	return p.text()
}

// startNaming asks for the client's name while the dialogue goes on. It ends
// with the connection, or after Timeouts.Name.
func (c *conn) startNaming() {
	if c.peer.name != "" && (!c.ln.HasHostnames || c.peer.socket) {
		c.logConnected()
		return
	}
	c.peer.ready = make(chan struct{})
	go func() {
		defer close(c.peer.ready)
		ctx, cancel := context.WithTimeout(c.ctx, c.srv.cfg.Timeouts.Name)
		defer cancel()
		c.takeNames(ctx)
		c.logConnected()
	}()
}

func (c *conn) takeNames(ctx context.Context) {
	r, err := c.srv.lookup.Connect(ctx, lookup.ConnectRequest{
		Listener: c.ln.Index, Remote: c.peer.remote, Local: c.peer.local,
	})
	if err != nil && c.ctx.Err() == nil {
		c.warn("smtp name not found", slog.String("address", c.peer.text()), slog.String("error", err.Error()))
	}
	if c.peer.name == "" {
		c.peer.name = unknownName
		if name := address.OneLine(r.RDNS, 255); name != "" {
			c.peer.name = name
		}
	}
	c.peer.ours = address.OneLine(r.Hostname, 255)
}

// awaitNames waits for what startNaming began; it cannot take longer than
// Timeouts.Name after the connection.
func (c *conn) awaitNames() {
	if c.peer.ready != nil {
		<-c.peer.ready
		c.peer.ready = nil
	}
}

// logConnected says who is there, once the name is known.
func (c *conn) logConnected() {
	attrs := []slog.Attr{slog.String("address", c.peer.text()), slog.String("host", c.peer.name)}
	if c.ln.Tag != "" {
		attrs = append(attrs, slog.String("tag", c.ln.Tag))
	}
	c.event("smtp connected", attrs...)
}

// rdns is the client's host name, or "<unknown>".
func (c *conn) rdns() string {
	c.awaitNames()
	return c.peer.name
}

// hostname is our own name towards this client.
func (c *conn) hostname() string {
	if c.ln.HasHostnames {
		c.awaitNames()
		if c.peer.ours != "" {
			return c.peer.ours
		}
	}
	if c.ln.Hostname != "" {
		return c.ln.Hostname
	}
	return c.srv.cfg.Hostname
}
