package ldap

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// errTimeout is wrapped by errors of questions that a server did not answer in
// time.
var errTimeout = errors.New("no answer in time")

// conn is one connection. Searches on it run side by side; what it is bound as
// does not change, except in the hands of a binder.
type conn struct {
	*ldap.Conn
	wire   *wire
	server *place
	using  int // questions on it; guarded by the pool

	// stuck is when the oldest question was asked that got no answer in its time
	// while nothing else came in, in nanoseconds; 0: there is none.
	stuck atomic.Int64
}

// kill ends the connection at once. The library would wait for its own
// goroutines, which a server that takes no bytes can hold up.
func (c *conn) kill() {
	_ = c.wire.Close() // it is given up
	go func() { _ = c.Close() }()
}

// lost reports whether the connection is closed, or silent since a question that
// was given up.
func (c *conn) lost(patience time.Duration) bool {
	if c.IsClosing() || c.wire.broken() != nil {
		return true
	}
	since := c.stuck.Load()
	if since == 0 {
		return false
	}
	if c.wire.last.Load() > since {
		c.stuck.CompareAndSwap(since, 0)
		return false
	}
	return time.Since(time.Unix(0, since)) > patience
}

// ended returns an error when the library may have ended a search of its own
// early, which it does not say.
func (c *conn) ended() error {
	if c.IsClosing() {
		return ldap.NewError(ldap.ErrorNetwork, errors.New("connection closed"))
	}
	if err := c.GetLastError(); err != nil && strings.Contains(err.Error(), "panic") {
		return ldap.NewError(ldap.ErrorNetwork, err)
	}
	return nil
}

// gaveUp notes that a question asked at began got no answer.
func (c *conn) gaveUp(began time.Time) {
	if at := began.UnixNano(); c.wire.last.Load() < at {
		c.stuck.CompareAndSwap(0, at)
	}
}

// place is a server and when it failed last.
type place struct {
	server
	failed atomic.Int64 // in nanoseconds
}

// avoid is how long a server that failed is asked after the others.
const avoid = 30 * time.Second

// dialer makes connections to the servers of a table.
type dialer struct {
	set    *settings
	places []*place
	schema *schema
}

func newDialer(set *settings) *dialer {
	d := &dialer{set: set, schema: newSchema(set)}
	for _, s := range set.servers {
		d.places = append(d.places, &place{server: s})
	}
	return d
}

// order returns the places in the order to try: as configured, those that failed
// a moment ago last.
func (d *dialer) order() []*place {
	var good, bad []*place
	for _, p := range d.places {
		if at := p.failed.Load(); at != 0 && time.Since(time.Unix(0, at)) < avoid {
			bad = append(bad, p)
		} else {
			good = append(good, p)
		}
	}
	return append(good, bad...)
}

// connect returns a connection to the first server that takes one. Each has the
// table's timeout. When bind is false nobody is bound on it.
func (d *dialer) connect(ctx context.Context, bind bool) (*conn, error) {
	var failures []error
	for _, p := range d.order() {
		c, err := d.connectTo(ctx, p, bind)
		if err == nil {
			p.failed.Store(0)
			return c, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", p, err))
		if ctx.Err() != nil {
			break
		}
		p.failed.Store(time.Now().UnixNano())
	}
	return nil, errors.Join(failures...)
}

func (d *dialer) connectTo(ctx context.Context, p *place, bind bool) (*conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.set.timeout, errTimeout)
	defer cancel()
	nc, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, p.network(), p.addr)
	if err != nil {
		return nil, inTime(ctx, err)
	}
	// Whatever waits below ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	secure, err := d.secure(ctx, p, nc)
	if err != nil {
		_ = nc.Close() // the error says more
		return nil, inTime(ctx, err)
	}
	w := newWire(secure, d.set.timeout)
	c := &conn{Conn: ldap.NewConn(w, secure != nc), wire: w, server: p}
	c.Start()
	if bind {
		if err := d.bind(c); err != nil {
			c.kill()
			return nil, inTime(ctx, err)
		}
	}
	if ctx.Err() != nil {
		c.kill()
		return nil, inTime(ctx, ctx.Err())
	}
	return c, nil
}

// inTime returns why ctx ended, when that is what made err.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (d *dialer) secure(ctx context.Context, p *place, nc net.Conn) (net.Conn, error) {
	if p.scheme != "ldaps" && !d.set.startTLS {
		return nc, nil
	}
	if d.set.startTLS {
		if err := startTLS(nc); err != nil {
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
	}
	cfg := d.set.tls.Clone()
	cfg.ServerName = p.host
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return tc, nil
}

// startTLS asks for TLS (RFC 4511, 4.14). Nothing is read beyond the answer:
// what an attacker might have put behind it goes to the handshake, which fails.
func startTLS(nc net.Conn) error {
	const oid = "1.3.6.1.4.1.1466.20037"
	req := ber.NewSequence("LDAPMessage")
	req.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 1, "messageID"))
	ext := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationExtendedRequest, nil, "ExtendedRequest")
	ext.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, oid, "requestName"))
	req.AppendChild(ext)
	if _, err := nc.Write(req.Bytes()); err != nil {
		return err
	}
	raw, err := readMessage(nc)
	if err != nil {
		return err
	}
	res, err := ber.DecodePacketErr(raw)
	if err != nil {
		return err
	}
	return ldap.GetLDAPError(res)
}

// readMessage reads one short message, byte by byte.
func readMessage(nc net.Conn) ([]byte, error) {
	var buf bytes.Buffer
	var f frame
	b := make([]byte, 1)
	for {
		if _, err := nc.Read(b); err != nil {
			return nil, err
		}
		buf.Write(b)
		if !f.feed(b) || buf.Len() > 1<<16 {
			return nil, errMessage
		}
		if f.rest == 0 && !f.head && buf.Len() > 1 {
			return buf.Bytes(), nil
		}
	}
}

func (d *dialer) bind(c *conn) error {
	switch {
	case d.set.external:
		if err := c.ExternalBind(); err != nil {
			return fmt.Errorf("bind as the connection says (EXTERNAL): %w", err)
		}
	case d.set.bindDN != "":
		if err := c.Bind(d.set.bindDN, d.set.password()); err != nil {
			return fmt.Errorf("bind as %s: %w", d.set.bindDN, err)
		}
	}
	return nil
}

// isNetwork reports whether an error is that of a connection, not the answer of
// a server.
func isNetwork(err error) bool {
	for _, ours := range []error{errTimeout, errTooLarge, errReferral, errRange} {
		if errors.Is(err, ours) {
			return false
		}
	}
	var le *ldap.Error
	if !errors.As(err, &le) {
		return err != nil
	}
	return le.ResultCode == ldap.ErrorNetwork || le.ResultCode == ldap.ErrorUnexpectedMessage || le.ResultCode == ldap.ErrorUnexpectedResponse
}

// elsewhere reports whether another server may answer what this one refused.
func elsewhere(err error) bool {
	return ldap.IsErrorAnyOf(err, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable)
}
