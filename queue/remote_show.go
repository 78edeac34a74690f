package queue

import (
	"context"
	"fmt"
	"io"

	"tabard/internal/rpc"
)

// maxShownBodies bounds what one connection of a tool has open.
const maxShownBodies = 4

type openedBody struct{ Handle, Size int64 }

type shownRequest struct {
	Handle, Offset int64
	Max            int
}

// OpenBody serves Admin.OpenBody.
func (s *adminService) OpenBody(c *rpc.Call[MessageID], r *rpc.Reply[openedBody]) error {
	return rpc.Do(c, r, func(ctx context.Context, id MessageID) (openedBody, error) {
		body, err := s.admin.OpenBody(ctx, id)
		if err != nil {
			return openedBody{}, err
		}
		size := body.Size()
		handle, err := s.bodies.add(body)
		return openedBody{handle, size}, err
	})
}

// ReadBody serves reading of what OpenBody opened.
func (s *adminService) ReadBody(c *rpc.Call[shownRequest], r *rpc.Reply[[]byte]) error {
	return rpc.Do(c, r, func(_ context.Context, req shownRequest) (p []byte, err error) {
		err = s.bodies.use(req.Handle, func(b Body) error {
			if req.Offset < 0 || req.Max < 1 {
				return fmt.Errorf("%w: body from %d, %d bytes", rpc.ErrInvalid, req.Offset, req.Max)
			}
			p, err = readChunk(b, req.Offset, req.Max)
			return err
		})
		return p, err
	})
}

// CloseBody ends reading.
func (s *adminService) CloseBody(c *rpc.Call[int64], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, handle int64) (rpc.None, error) {
		_ = s.bodies.remove(handle) // whoever closes does not mind that it has ended already
		return rpc.None{}, nil
	})
}

// OpenBody implements Admin.
func (q *Queue) OpenBody(ctx context.Context, id MessageID) (Body, error) {
	return q.store.Body(ctx, id)
}

// OpenBody implements Admin. The body is read with the context that opened it.
func (a *remoteAdmin) OpenBody(ctx context.Context, id MessageID) (Body, error) {
	o, err := rpc.Invoke[MessageID, openedBody](ctx, a.caller, "QueueAdmin.OpenBody", id)
	if err != nil {
		return nil, err
	}
	return &remoteBody{ctx: ctx, caller: a.caller, opened: o}, nil
}

// remoteBody is a body that another process has open.
type remoteBody struct {
	ctx    context.Context
	caller rpc.Caller
	opened openedBody
}

// Size implements Body.
func (b *remoteBody) Size() int64 { return b.opened.Size }

// ReadAt implements Body.
func (b *remoteBody) ReadAt(p []byte, offset int64) (int, error) {
	n := 0
	for n < len(p) {
		chunk, err := rpc.Invoke[shownRequest, []byte](b.ctx, b.caller, "QueueAdmin.ReadBody",
			shownRequest{b.opened.Handle, offset + int64(n), min(len(p)-n, wireChunk)})
		if err != nil {
			return n, err
		}
		if len(chunk) == 0 {
			return n, io.EOF
		}
		n += copy(p[n:], chunk)
	}
	return n, nil
}

// Close implements Body.
func (b *remoteBody) Close() error {
	_, err := rpc.Invoke[int64, rpc.None](b.ctx, b.caller, "QueueAdmin.CloseBody", b.opened.Handle)
	return err
}
