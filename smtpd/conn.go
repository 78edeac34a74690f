package smtpd

import (
	"bufio"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"tabard/internal/config"
	"tabard/internal/logging"
)

const (
	inputBuffer  = 16 << 10 // one TLS record; holds the longest command line
	maxReplies   = 64 << 10 // replies gathered before a write is forced
	lingerTime   = time.Second
	lingerVolume = 256 << 10
)

// conn is one connection as go-smtp sees it. It stands above TLS and owns the
// lines: Read gives go-smtp one command at a time, so that go-smtp never holds
// input that is not its own; message content is read by our scanner from the
// same buffer; what go-smtp writes is collected, put into the field's words and
// sent when the connection is about to wait for the network.
//
// All methods belong to the session's goroutine, except wake.
type conn struct {
	srv    *Server
	ln     *Listener
	id     string
	began  time.Time
	raw    net.Conn
	rw     net.Conn  // raw, or TLS above it
	tls    *tls.Conn // nil without TLS
	br     *bufio.Reader
	out    []byte // replies not sent yet
	in     []byte // what go-smtp reads next; the rest of given
	given  []byte
	sess   *session
	peer   peer
	group  netip.Prefix // what counts as one client; invalid for sockets
	ctx    context.Context
	cancel context.CancelFunc

	verb      verb   // of the command in hand
	command   []byte // its text, for logs
	challenge bool   // a SASL challenge is out: the next line is its response
	swallow   bool   // drop the next reply: it answers a command that we made up
	errors    int    // commands refused since the last accepted message
	overshot  int    // recipients above the limit since then

	phase  phase
	before time.Time // deadline of the phase
	reason string    // why the session ends; no more input is read once it is set
	linger bool      // the peer may still be sending: do not let a reset eat our last words
	dead   bool      // the socket is of no use any more
	closed bool

	mu      sync.Mutex // guards waiting and the read deadline against wake
	waiting bool       // for a command, outside a transaction

	shaking *list.Element // its place among the handshakes; guarded by the door's mu
	shakes  time.Time     // since when
}

// phase says which timeout a wait for input has.
type phase uint8

const (
	phaseCommand phase = iota
	phaseMessage
)

var errDraining = errors.New("server is shutting down")

func newConn(srv *Server, ln *Listener, raw net.Conn) *conn {
	c := &conn{srv: srv, ln: ln, raw: raw, rw: raw}
	c.peer.init(ln, raw)
	c.group = c.peer.group()
	return c
}

// start makes ready what a connection that was let in needs.
func (c *conn) start() {
	c.id, c.began = sessionID(), time.Now()
	c.ctx, c.cancel = context.WithCancel(c.srv.life)
	c.sess = &session{c: c, srv: c.srv}
	if br, ok := c.srv.bufs.Get().(*bufio.Reader); ok {
		br.Reset(network{c})
		c.br = br
	} else {
		c.br = bufio.NewReaderSize(network{c}, inputBuffer)
	}
	c.startNaming()
}

// Read gives go-smtp the next command, or io.EOF when the session is over.
func (c *conn) Read(p []byte) (int, error) {
	for len(c.in) == 0 {
		if c.reason == "" {
			c.next()
			continue
		}
		return 0, io.EOF
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// next reads one line and either answers it or leaves it in c.in.
func (c *conn) next() {
	c.phase, c.before = phaseCommand, time.Time{}
	line, err := c.br.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		c.tooLong()
	case err != nil:
		c.fail(err)
	case c.challenge:
		c.challenge = false
		c.saslLine(line)
	default:
		c.sess.dispatch(line)
	}
}

// give lets go-smtp read b.
func (c *conn) give(b []byte) { c.given, c.in = b, b }

// fail ends the session after an error of the network.
func (c *conn) fail(err error) {
	switch {
	case errors.Is(err, errDraining):
		c.hangup("shutdown")
		c.put("421 4.3.2 Service shutting down")
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.hangup("timeout")
		c.put("421 4.4.2 Timeout")
	case errors.Is(err, io.EOF):
		c.hangup("disconnect")
	default:
		c.hangup("io-error: " + err.Error())
		c.dead = true
	}
	c.linger = false
}

// hangup lets no more input in. Replies still go out. The first reason counts.
func (c *conn) hangup(reason string) {
	if c.reason == "" {
		c.reason = reason
		c.linger = true
	}
}

// flush sends the collected replies.
func (c *conn) flush() {
	if len(c.out) == 0 {
		return
	}
	if !c.dead {
		_ = c.raw.SetWriteDeadline(time.Now().Add(c.srv.cfg.Timeouts.Write))
		if _, err := c.rw.Write(c.out); err != nil {
			c.hangup("io-error: " + err.Error())
			c.dead = true
		}
	}
	c.out = c.out[:0]
}

// Close sends what is left, closes the socket and says so in the log.
func (c *conn) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	if c.reason == "" {
		c.reason = "quit"
	}
	c.flush()
	if c.linger && !c.dead {
		c.drainSocket()
	}
	err := c.rw.Close()
	c.cancel()
	c.awaitNames() // it ends with c.ctx, and its line comes before ours
	c.br.Reset(nil)
	c.srv.bufs.Put(c.br)
	c.srv.door.leave(c)
	c.srv.count.open.Add(-1)
	c.record()
	c.event("smtp disconnected", slog.String("reason", c.reason))
	return err
}

// drainSocket closes our half and reads on for a moment without looking: a
// socket closed with unread input sends a reset, which can overtake our reply.
func (c *conn) drainSocket() {
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	half, ok := c.raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.raw.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.raw, lingerVolume)
}

// network is where the buffer reads from: it sends our replies before it waits,
// and sets the deadline of the phase.
type network struct{ c *conn }

func (n network) Read(p []byte) (int, error) {
	c := n.c
	c.flush()
	if c.dead {
		return 0, io.EOF
	}
	if err := c.arm(); err != nil {
		return 0, err
	}
	k, err := c.rw.Read(p)
	c.mu.Lock()
	c.waiting = false
	c.mu.Unlock()
	if err != nil && c.phase == phaseCommand && c.idle() && c.srv.door.draining.Load() {
		err = errDraining
	}
	return k, err
}

// arm sets the read deadline. A command has one deadline for the whole line, a
// message one for each block and one for all.
func (c *conn) arm() error {
	t := &c.srv.cfg.Timeouts
	by := c.before
	switch {
	case c.phase == phaseMessage:
		if block := time.Now().Add(t.Data); block.Before(by) {
			by = block
		}
	case by.IsZero():
		by = time.Now().Add(t.Command)
		c.before = by
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == phaseCommand && c.idle() {
		if c.srv.door.draining.Load() {
			return errDraining
		}
		c.waiting = true
	}
	return c.raw.SetReadDeadline(by)
}

// idle reports whether the session can be closed without losing anything.
func (c *conn) idle() bool { return c.sess.tx == nil && !c.challenge }

// wake ends a wait for the next command, for Shutdown.
func (c *conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// implicitTLS reports whether TLS comes before the first byte.
func (c *conn) implicitTLS() bool { return c.ln.TLS == config.TLSImplicit }

// event logs one line of this session.
func (c *conn) event(msg string, attrs ...slog.Attr) { c.logAt(slog.LevelInfo, msg, attrs) }

func (c *conn) warn(msg string, attrs ...slog.Attr) { c.logAt(slog.LevelWarn, msg, attrs) }

func (c *conn) logAt(level slog.Level, msg string, attrs []slog.Attr) {
	if !c.srv.log.Enabled(c.ctx, level) {
		return
	}
	all := make([]slog.Attr, 0, 8)
	all = append(all, slog.String(logging.SessionKey, c.id))
	c.srv.log.LogAttrs(c.ctx, level, msg, append(all, attrs...)...)
}

// The rest of net.Conn. Deadlines are ours, not go-smtp's.

// LocalAddr returns the socket's own address.
func (c *conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the client's address.
func (c *conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline does nothing.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
