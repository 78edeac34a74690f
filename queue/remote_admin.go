package queue

import (
	"context"

	"tabard/internal/rpc"
)

// RegisterAdmin serves a as "QueueAdmin" on srv. Pages and listings are cut to
// what one answer carries. The server must serve one connection only; release, called
// when that has ended, closes what it had open.
func RegisterAdmin(srv *rpc.Server, a Admin) (release func(), err error) {
	s := &adminService{
		admin:   a,
		bodies:  handles[Body]{what: "body that is open", most: maxShownBodies, idle: maxIdle, end: func(b Body) { _ = b.Close() }},
		imports: handles[*servedImport]{what: "message that is being imported", most: MaxImports, idle: maxIdle, end: (*servedImport).abort},
	}
	release = func() {
		s.bodies.close()
		s.imports.close()
	}
	return release, srv.Register("QueueAdmin", s)
}

// NewRemoteAdmin returns the Admin behind a connection with RegisterAdmin.
func NewRemoteAdmin(c rpc.Caller) Admin { return &remoteAdmin{c} }

type adminService struct {
	admin   Admin
	bodies  handles[Body]
	imports handles[*servedImport]
}

type showRequest struct {
	ID  MessageID
	N   int
	Max int
}

func textSize(e *Envelope) int {
	return len(e.Address) + len(e.Recipient) + len(e.ORCPT) + len(e.Action) + len(e.User) + len(e.LastError)
}

// Show serves Admin.Show.
func (s *adminService) Show(c *rpc.Call[showRequest], r *rpc.Reply[Shown]) error {
	return rpc.Do(c, r, func(ctx context.Context, req showRequest) (Shown, error) {
		shown, err := s.admin.Show(ctx, req.ID, req.N, req.Max)
		size := 24 * len(shown.Active)
		for i := range shown.Envelopes {
			if size += 300 + textSize(&shown.Envelopes[i]); size > wireBytes {
				shown.Envelopes, shown.More = shown.Envelopes[:i], true
				break
			}
		}
		for i := range shown.Attempts {
			a := &shown.Attempts[i]
			if size += 200 + len(a.Result) + len(a.Remote); size > wireBytes {
				shown.Attempts, shown.More = shown.Attempts[:i], true
				break
			}
		}
		return shown, err
	})
}

type releaseRequest struct {
	Kind  HoldKind
	Value string
}

// Hold serves Admin.Hold.
func (s *adminService) Hold(c *rpc.Call[Hold], r *rpc.Reply[Hold]) error {
	return rpc.Do(c, r, func(ctx context.Context, h Hold) (Hold, error) { return s.admin.Hold(ctx, h) })
}

// Release serves Admin.Release.
func (s *adminService) Release(c *rpc.Call[releaseRequest], r *rpc.Reply[int]) error {
	return rpc.Do(c, r, func(ctx context.Context, req releaseRequest) (int, error) {
		return s.admin.Release(ctx, req.Kind, req.Value)
	})
}

// Holds serves Admin.Holds.
func (s *adminService) Holds(c *rpc.Call[rpc.None], r *rpc.Reply[[]HeldCount]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) ([]HeldCount, error) { return s.admin.Holds(ctx) })
}

// Routes serves Admin.Routes.
func (s *adminService) Routes(c *rpc.Call[rpc.None], r *rpc.Reply[[]Route]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) ([]Route, error) {
		list, err := s.admin.Routes(ctx)
		size := 0
		for i := range list {
			e := &list[i]
			if size += 300 + len(e.Action) + len(e.Domain) + len(e.Servers) + len(e.LastError) + len(e.Paused); i > 0 && size > wireBytes {
				return list[:i], err
			}
		}
		return list, err
	})
}

// Profile serves Admin.Profile.
func (s *adminService) Profile(c *rpc.Call[rpc.None], r *rpc.Reply[Profile]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) (Profile, error) { return s.admin.Profile(ctx) })
}

// Trace serves Admin.Trace.
func (s *adminService) Trace(c *rpc.Call[MessageID], r *rpc.Reply[Trace]) error {
	return rpc.Do(c, r, func(ctx context.Context, id MessageID) (Trace, error) { return s.admin.Trace(ctx, id) })
}

// Stats serves Admin.Stats.
func (s *adminService) Stats(c *rpc.Call[rpc.None], r *rpc.Reply[Stats]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) (Stats, error) { return s.admin.Stats(ctx) })
}

type remoteAdmin struct{ caller rpc.Caller }

// Show implements Admin.
func (a *remoteAdmin) Show(ctx context.Context, id MessageID, n, limit int) (Shown, error) {
	return rpc.Invoke[showRequest, Shown](ctx, a.caller, "QueueAdmin.Show", showRequest{id, n, limit})
}

// Hold implements Admin.
func (a *remoteAdmin) Hold(ctx context.Context, h Hold) (Hold, error) {
	return rpc.Invoke[Hold, Hold](ctx, a.caller, "QueueAdmin.Hold", h)
}

// Release implements Admin.
func (a *remoteAdmin) Release(ctx context.Context, kind HoldKind, value string) (int, error) {
	return rpc.Invoke[releaseRequest, int](ctx, a.caller, "QueueAdmin.Release", releaseRequest{kind, value})
}

// Holds implements Admin.
func (a *remoteAdmin) Holds(ctx context.Context) ([]HeldCount, error) {
	return rpc.Invoke[rpc.None, []HeldCount](ctx, a.caller, "QueueAdmin.Holds", rpc.None{})
}

// Routes implements Admin.
func (a *remoteAdmin) Routes(ctx context.Context) ([]Route, error) {
	return rpc.Invoke[rpc.None, []Route](ctx, a.caller, "QueueAdmin.Routes", rpc.None{})
}

// Profile implements Admin.
func (a *remoteAdmin) Profile(ctx context.Context) (Profile, error) {
	return rpc.Invoke[rpc.None, Profile](ctx, a.caller, "QueueAdmin.Profile", rpc.None{})
}

// Trace implements Admin.
func (a *remoteAdmin) Trace(ctx context.Context, id MessageID) (Trace, error) {
	return rpc.Invoke[MessageID, Trace](ctx, a.caller, "QueueAdmin.Trace", id)
}

// Stats implements Admin.
func (a *remoteAdmin) Stats(ctx context.Context) (Stats, error) {
	return rpc.Invoke[rpc.None, Stats](ctx, a.caller, "QueueAdmin.Stats", rpc.None{})
}

var (
	_ Client = (*remoteClient)(nil)
	_ Worker = (*remoteWorker)(nil)
	_ Admin  = (*remoteAdmin)(nil)
)
