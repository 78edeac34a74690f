package queue

import (
	"context"
	"fmt"

	"tabard/internal/rpc"
)

// MaxImports bounds the messages that one connection of a tool imports at the same time.
const MaxImports = 16

// Export serves Admin.Export.
func (s *adminService) Export(c *rpc.Call[Export], r *rpc.Reply[ExportPage]) error {
	return rpc.Do(c, r, s.admin.Export)
}

// Export implements Admin.
func (a *remoteAdmin) Export(ctx context.Context, e Export) (ExportPage, error) {
	return rpc.Invoke[Export, ExportPage](ctx, a.caller, "QueueAdmin.Export", e)
}

// servedImport is a message that a peer imports call by call.
type servedImport struct {
	in   Import
	to   Importer // nil: its envelopes are still coming
	size int64
}

func (i *servedImport) abort() {
	if i.to != nil {
		i.to.Abort() // of no consequence after Commit
	}
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

// Import serves Admin.Import. A message that is known has no handle.
func (s *adminService) Import(c *rpc.Call[importRequest], r *rpc.Reply[importReply]) error {
	return rpc.Do(c, r, func(ctx context.Context, req importRequest) (importReply, error) {
		reply := importReply{Handle: req.Handle}
		if req.Handle == 0 {
			req.In.Envelopes = nil
			var err error
			if reply.Handle, err = s.imports.add(&servedImport{in: req.In}); err != nil {
				return reply, err
			}
		}
		err := s.imports.use(reply.Handle, func(i *servedImport) error {
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
			reply.Known = to.Known()
			return nil
		})
		if err == nil && reply.Known != "" {
			err = s.imports.remove(reply.Handle)
		}
		return reply, err
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
		err = s.imports.last(handle, func(i *servedImport) error {
			if i.to == nil {
				return fmt.Errorf("%w: not all of its envelopes are here", rpc.ErrInvalid)
			}
			defer i.abort()
			n, err = i.to.Commit(ctx)
			return err
		})
		return n, err
	})
}

// ImportAbort serves Importer.Abort.
func (s *adminService) ImportAbort(c *rpc.Call[int64], r *rpc.Reply[rpc.None]) error {
	return rpc.Do(c, r, func(_ context.Context, handle int64) (rpc.None, error) {
		return rpc.None{}, s.imports.remove(handle)
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
