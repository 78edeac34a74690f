package rpc

import (
	"context"
	"errors"
	"time"
)

// Bounds of InvokeRetry.
const (
	maxAttempts = 12
	firstPause  = 5 * time.Millisecond
	maxPause    = 500 * time.Millisecond
)

// Invoke calls method with req and returns its typed answer. The error is the
// handler's (a *RemoteError that keeps the sentinels of this package), that of
// ctx, or ErrUnavailable when the connection was lost: the peer may then have
// carried out the request or not.
func Invoke[Req, Resp any](ctx context.Context, c Caller, method string, req Req) (Resp, error) {
	var resp Resp
	err := c.Call(ctx, method, req, &resp)
	if err != nil {
		var zero Resp
		return zero, err
	}
	return resp, nil
}

// InvokeRetry is Invoke for questions that may be asked twice. It asks again
// when the connection is lost, until ctx ends, 12 times at most.
func InvokeRetry[Req, Resp any](ctx context.Context, c Caller, method string, req Req) (Resp, error) {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		resp, err := Invoke[Req, Resp](ctx, c, method, req)
		var remote *RemoteError
		if !errors.Is(err, ErrUnavailable) || errors.As(err, &remote) || attempt == maxAttempts {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return resp, err
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}
