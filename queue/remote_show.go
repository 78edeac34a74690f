package queue

import (
	"context"
	"fmt"
	"io"
	"sync"

	"tabard/internal/rpc"
)

// maxShownBodies bounds what one connection of a tool has open.
const maxShownBodies = 4

// shownBodies are the bodies that a connection reads.
type shownBodies struct {
	mu    sync.Mutex
	open  map[int64]Body
	last  int64
	ended bool
}

func (b *shownBodies) add(body Body) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || len(b.open) >= maxShownBodies {
		body.Close()
		return 0, fmt.Errorf("%w: %d bodies are open", rpc.ErrBusy, len(b.open))
	}
	if b.open == nil {
		b.open = make(map[int64]Body)
	}
	b.last++
	b.open[b.last] = body
	return b.last, nil
}

func (b *shownBodies) read(id, offset int64, limit int) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	body := b.open[id]
	if body == nil || offset < 0 || limit < 1 {
		return nil, fmt.Errorf("%w: no such body is open", rpc.ErrInvalid)
	}
	return readChunk(body, offset, limit)
}

func (b *shownBodies) drop(id int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	body := b.open[id]
	delete(b.open, id)
	if body == nil {
		return nil
	}
	return body.Close()
}

func (b *shownBodies) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	for id, body := range b.open {
		body.Close()
		delete(b.open, id)
	}
}

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
	return rpc.Do(c, r, func(_ context.Context, req shownRequest) ([]byte, error) {
		return s.bodies.read(req.Handle, req.Offset, req.Max)
	})
}

// CloseBody ends reading.
func (s *adminService) CloseBody(c *rpc.Call[int64], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, handle int64) (rpc.None, error) { return rpc.None{}, s.bodies.drop(handle) })
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
