package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"tabard/internal/privsep"
	"tabard/internal/privsep/fdpass"
)

// answerTimeout leaves the server time to serve others that came first. The
// context of a call may end it earlier.
const answerTimeout = 2 * exchangeTimeout

// Client asks a running Tabard.
type Client struct{ path string }

// Dial returns a client for the control socket at path once it has seen that it
// is served; else the error wraps ErrNotRunning, or says what forbids it.
func Dial(path string) (*Client, error) {
	c := &Client{path: path}
	conn, err := c.connect(context.Background())
	if err != nil {
		return nil, err
	}
	conn.Close()
	return c, nil
}

func (c *Client) connect(ctx context.Context) (*net.UnixConn, error) {
	d := net.Dialer{Timeout: exchangeTimeout}
	conn, err := d.DialContext(ctx, "unix", c.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w (no control socket at %s)", ErrNotRunning, c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w (nothing listens on the control socket at %s)", ErrNotRunning, c.path)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("not allowed to use the control socket at %s: %w", c.path, os.ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("control socket: %T is not a unix connection", conn)
	}
	return unix, nil
}

// Status returns the state of every process.
func (c *Client) Status(ctx context.Context) (privsep.Status, error) {
	rep, f, err := c.exchange(ctx, request{Op: opStatus})
	if f != nil {
		f.Close()
	}
	return rep.Status, err
}

// Reload makes the server read its configuration again. The error says why the
// old one stays in force.
func (c *Client) Reload(ctx context.Context) error {
	_, f, err := c.exchange(ctx, request{Op: opReload})
	if f != nil {
		_ = f.Close()
	}
	return err
}

// Connect returns a connection to the process called name, which answers calls
// on it as it does on an edge called EdgeName.
func (c *Client) Connect(ctx context.Context, name string) (net.Conn, error) {
	_, f, err := c.exchange(ctx, request{Op: opConnect, Name: name})
	if err != nil {
		return nil, fmt.Errorf("connect to process: %w", err)
	}
	if f == nil {
		return nil, errors.New("control socket: the connection is missing")
	}
	defer f.Close()
	return net.FileConn(f)
}

// RefusedError is the server's own answer to a request that it did not carry out.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

// exchange sends one request and waits for its answer.
func (c *Client) exchange(ctx context.Context, req request) (reply, *os.File, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return reply{}, nil, err
	}
	peer, err := fdpass.New(conn, maxRequest, maxReply)
	if err != nil {
		return reply{}, nil, err
	}
	defer peer.Close()
	defer peer.Discard()
	timeout := answerTimeout
	if req.Op == opReload {
		timeout += reloadTimeout
	}
	if err := peer.SetDeadline(time.Now().Add(timeout)); err != nil {
		return reply{}, nil, err
	}
	stop := context.AfterFunc(ctx, func() { peer.Close() })
	defer stop()
	if err := peer.Send(req, nil); err != nil {
		return reply{}, nil, fmt.Errorf("control socket: %w", err)
	}
	var rep reply
	f, err := peer.RecvFile(&rep)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err == nil && rep.Error != "":
		err = &RefusedError{rep.Error}
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return reply{}, nil, fmt.Errorf("control socket: %w", err)
	}
	return rep, f, nil
}
