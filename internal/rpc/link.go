package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxLinkWait bounds how long a call waits for a connection to its peer.
const maxLinkWait = 5 * time.Second

// Link makes calls to a peer process whose connection is replaced when either
// side is restarted. It is safe for concurrent use.
type Link struct {
	name string
	opts []Option

	mu      sync.Mutex
	client  *Client       // nil until the first Set
	changed chan struct{} // closed and replaced by Set and Close
	closed  bool
}

// NewLink returns a link to the process called name, which is for errors only.
func NewLink(name string, opts ...Option) *Link {
	return &Link{name: name, opts: opts, changed: make(chan struct{})}
}

// Set makes conn the connection. Calls in flight on the one before, if it still
// is alive, return ErrUnavailable.
func (l *Link) Set(conn net.Conn) {
	l.replace(func() *Client { return NewClient(conn, l.opts...) }, conn)
}

// Close ends the link: every call, present and future, returns ErrUnavailable.
func (l *Link) Close() error {
	l.replace(nil, nil)
	return nil
}

func (l *Link) replace(open func() *Client, conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		if conn != nil {
			conn.Close()
		}
		return
	}
	if l.client != nil {
		l.client.Close()
		l.client = nil
	}
	if l.closed = open == nil; !l.closed {
		l.client = open()
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Call implements Caller. Without a connection it waits for one, for 5 s at
// most. A call whose connection is lost after it was sent is not repeated: the
// peer may have carried it out.
func (l *Link) Call(ctx context.Context, method string, args, reply any) error {
	var expired <-chan time.Time // from the first wait on
	for {
		client, changed, err := l.current()
		if err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		if client != nil {
			err := client.Call(ctx, method, args, reply)
			if !errors.Is(err, errNotSent) {
				return l.named(err)
			}
		}
		if expired == nil {
			expired = time.After(maxLinkWait)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: no connection to %s: %w", method, l.name, ctx.Err())
		case <-expired:
			return fmt.Errorf("%s: no connection to %s: %w", method, l.name, ErrUnavailable)
		}
	}
}

// current returns the live client, or nil and what announces the next one.
func (l *Link) current() (*Client, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, fmt.Errorf("link to %s is closed: %w", l.name, ErrUnavailable)
	}
	return l.client, l.changed, nil
}

// named adds the peer's name to a transport error.
func (l *Link) named(err error) error {
	var remote *RemoteError
	if errors.Is(err, ErrUnavailable) && !errors.As(err, &remote) {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return err
}

var (
	_ Caller = (*Client)(nil)
	_ Caller = (*Link)(nil)
)
