package queue

import (
	"context"
	"fmt"
	"sync"

	"tabard/internal/rpc"
)

// maxImports bounds what one connection of a tool imports at the same time.
const maxImports = 4

// Export serves Admin.Export.
func (s *adminService) Export(c *rpc.Call[Export], r *rpc.Reply[ExportPage]) error {
	return rpc.Do(c, r, s.admin.Export)
}

// Export implements Admin.
func (a *remoteAdmin) Export(ctx context.Context, e Export) (ExportPage, error) {
	return rpc.Invoke[Export, ExportPage](ctx, a.caller, "QueueAdmin.Export", e)
}

// servedImports are the messages that a connection imports.
type servedImports struct {
	mu    sync.Mutex
	open  map[int64]*servedImport
	last  int64
	ended bool
}

// servedImport is a message that a peer imports call by call.
type servedImport struct {
	mu    sync.Mutex
	in    Import
	to    Importer // nil: its envelopes are still coming
	size  int64
	ended bool
}

type importRequest struct {
	Handle    int64  // 0: another message begins
	In        Import // without its envelopes; only when it begins
	Envelopes []Portable
	More      bool // more envelopes follow
}

type importReply struct {
	Handle int64
	Known  string
}

type importWrite struct {
	_      struct{} `cbor:",toarray"`
	Handle int64
	Offset int64 // must be where the last one ended
	Data   []byte
}

// Bulk implements rpc.Bulk.
func (importWrite) Bulk() {}

func (s *servedImports) begin(in Import) (int64, *servedImport, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.open) >= maxImports {
		return 0, nil, fmt.Errorf("%w: %d messages are being imported", rpc.ErrBusy, len(s.open))
	}
	if s.open == nil {
		s.open = make(map[int64]*servedImport)
	}
	s.last++
	i := &servedImport{in: in}
	s.open[s.last] = i
	return s.last, i, nil
}

// use runs f with a message. An error ends its import.
func (s *servedImports) use(handle int64, f func(*servedImport) error) error {
	s.mu.Lock()
	i := s.open[handle]
	s.mu.Unlock()
	if i == nil {
		return fmt.Errorf("%w: no such message is being imported", rpc.ErrInvalid)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return fmt.Errorf("%w: the message has ended", rpc.ErrInvalid)
	}
	err := f(i)
	if err != nil {
		s.drop(handle, i)
	}
	return err
}

// drop ends an import. It needs the message's mu.
func (s *servedImports) drop(handle int64, i *servedImport) {
	s.mu.Lock()
	delete(s.open, handle)
	s.mu.Unlock()
	if i.ended = true; i.to != nil {
		i.to.Abort() // of no consequence after Commit
		i.to = nil
	}
}

// close aborts what is left.
func (s *servedImports) close() {
	s.mu.Lock()
	s.ended = true
	left := s.open
	s.open = nil
	s.mu.Unlock()
	for handle, i := range left {
		i.mu.Lock()
		s.drop(handle, i)
		i.mu.Unlock()
	}
}

// Import serves Admin.Import. A message that is known has no handle.
func (s *adminService) Import(c *rpc.Call[importRequest], r *rpc.Reply[importReply]) error {
	return rpc.Do(c, r, func(ctx context.Context, req importRequest) (importReply, error) {
		reply := importReply{Handle: req.Handle}
		if req.Handle == 0 {
			req.In.Envelopes = nil
			var err error
			if reply.Handle, _, err = s.imports.begin(req.In); err != nil {
				return reply, err
			}
		}
		return reply, s.imports.use(reply.Handle, func(i *servedImport) error {
			if i.to != nil || len(i.in.Envelopes)+len(req.Envelopes) > MaxImported {
				return fmt.Errorf("%w: more than %d envelopes", rpc.ErrInvalid, MaxImported)
			}
			i.in.Envelopes = append(i.in.Envelopes, req.Envelopes...)
			if req.More {
				return nil
			}
			to, err := s.admin.Import(ctx, i.in)
			if err != nil {
				return err
			}
			i.in.Envelopes, i.to = nil, to
			if reply.Known = to.Known(); reply.Known != "" {
				s.imports.drop(reply.Handle, i)
			}
			return nil
		})
	})
}

// ImportWrite serves Importer.Write.
func (s *adminService) ImportWrite(c *rpc.Call[importWrite], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, req importWrite) (rpc.None, error) {
		return rpc.None{}, s.imports.use(req.Handle, func(i *servedImport) error {
			if i.to == nil || req.Offset != i.size {
				return fmt.Errorf("%w: body from %d, have %d", rpc.ErrInvalid, req.Offset, i.size)
			}
			n, err := i.to.Write(req.Data)
			i.size += int64(n)
			return err
		})
	})
}

// ImportCommit serves Importer.Commit.
func (s *adminService) ImportCommit(c *rpc.Call[int64], r *rpc.Reply[int]) error {
	return rpc.Do(c, r, func(ctx context.Context, handle int64) (n int, err error) {
		err = s.imports.use(handle, func(i *servedImport) error {
			if i.to == nil {
				return fmt.Errorf("%w: not all of its envelopes are here", rpc.ErrInvalid)
			}
			n, err = i.to.Commit(ctx)
			s.imports.drop(handle, i)
			return err
		})
		return n, err
	})
}

// ImportAbort serves Importer.Abort.
func (s *adminService) ImportAbort(c *rpc.Call[int64], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, handle int64) (rpc.None, error) {
		return rpc.None{}, s.imports.use(handle, func(i *servedImport) error {
			s.imports.drop(handle, i)
			return nil
		})
	})
}

// remoteImport sends the body of a message in pieces.
type remoteImport struct {
	ctx    context.Context // that began it
	caller rpc.Caller
	handle int64
	known  string
	sent   int64
	ended  bool
}

// Import implements Admin. The body is written with the context that began it.
func (a *remoteAdmin) Import(ctx context.Context, in Import) (Importer, error) {
	left := in.Envelopes
	in.Envelopes = nil
	req := importRequest{In: in}
	for {
		n, size := 0, 0
		for n < len(left) && n < wireRecipients && size < wireBytes {
			e := &left[n]
			size += 600 + textSize(&e.Envelope) + len(e.HeldFor) + len(e.Outcome)
			n++
		}
		req.Envelopes, left = left[:n], left[n:]
		req.More = len(left) > 0
		reply, err := rpc.Invoke[importRequest, importReply](ctx, a.caller, "QueueAdmin.Import", req)
		if err != nil {
			return nil, err
		}
		if !req.More {
			return &remoteImport{ctx: ctx, caller: a.caller, handle: reply.Handle, known: reply.Known, ended: reply.Known != ""}, nil
		}
		req = importRequest{Handle: reply.Handle}
	}
}

// Known implements Importer.
func (i *remoteImport) Known() string { return i.known }

// Write implements Importer.
func (i *remoteImport) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if i.ended {
			return n, errEnded
		}
		piece := p[n:min(len(p), n+wireChunk)]
		if _, err := rpc.Invoke[importWrite, rpc.None](i.ctx, i.caller, "QueueAdmin.ImportWrite",
			importWrite{Handle: i.handle, Offset: i.sent, Data: piece}); err != nil {
			return n, err
		}
		i.sent += int64(len(piece))
		n += len(piece)
	}
	return n, nil
}

// Commit implements Importer.
func (i *remoteImport) Commit(ctx context.Context) (int, error) {
	if i.known != "" {
		return 0, nil
	}
	if i.ended {
		return 0, errEnded
	}
	i.ended = true
	return rpc.Invoke[int64, int](ctx, i.caller, "QueueAdmin.ImportCommit", i.handle)
}

// Abort implements Importer.
func (i *remoteImport) Abort() {
	if i.ended {
		return
	}
	i.ended = true
	// Without an answer it ends with the connection.
	_, _ = rpc.Invoke[int64, rpc.None](i.ctx, i.caller, "QueueAdmin.ImportAbort", i.handle)
}
