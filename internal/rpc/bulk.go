package rpc

import (
	"context"
	"fmt"
)

// Bulk is implemented by requests that carry a piece of something large, such as the
// body of a message. A client has few of them in flight at a time, however many callers
// it has: a piece that waits for its turn is in nobody's memory but its caller's.
type Bulk interface{ Bulk() }

// maxBulk is how many requests that are Bulk a client has in flight. They keep the peer
// busy; more of them would only lie in buffers.
const maxBulk = 4

// bulk waits until a request that is Bulk may be encoded, and returns what ends its turn.
func (c *Client) bulk(ctx context.Context, method string, args any) (end func(), err error) {
	if _, ok := args.(Bulk); !ok {
		return func() {}, nil
	}
	select {
	case c.pieces <- struct{}{}:
		return func() { <-c.pieces }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	case <-c.codec.lost:
		return nil, fmt.Errorf("%s: %w: %w", method, ErrUnavailable, errNotSent)
	}
}
