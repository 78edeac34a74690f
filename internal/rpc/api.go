// Package rpc carries typed requests between Tabard's processes: net/rpc over
// one socket, encoded as CBOR with a hardened decoder, many calls in flight,
// writes coalesced, message size and number in flight bounded, the caller's
// deadline travelling along.
//
// The border is a security border: what a peer sends may be hostile. A frame
// that is too large or does not decode closes the connection; it never panics.
package rpc

import (
	"context"
	"errors"
)

// Caller makes calls to one peer.
type Caller interface {
	// Call invokes method with args and decodes the answer into reply. It
	// returns when the answer is there, when ctx ends, or, with ErrUnavailable,
	// when the connection is lost.
	Call(ctx context.Context, method string, args, reply any) error
}

// Errors that keep their identity across processes (errors.Is). Any other error
// of a handler arrives as its text.
var (
	ErrUnavailable = errors.New("peer process unavailable")
	ErrNotFound    = errors.New("not found")
	ErrNoSpace     = errors.New("no space left")
	ErrTooLarge    = errors.New("too large")
	ErrInvalid     = errors.New("invalid request")
	ErrBusy        = errors.New("too busy")
)
