package queue

import (
	"context"

	"tabard/internal/rpc"
)

// RegisterBodies serves a as "QueueBodies" on srv.
func RegisterBodies(srv *rpc.Server, a BodyAdmin) error {
	return srv.Register("QueueBodies", &bodyService{a})
}

// NewRemoteBodies returns the BodyAdmin behind a connection with RegisterBodies.
func NewRemoteBodies(c rpc.Caller) BodyAdmin { return &remoteBodies{c} }

type bodyService struct{ admin BodyAdmin }

// Bodies serves BodyAdmin.Bodies.
func (s *bodyService) Bodies(c *rpc.Call[rpc.None], r *rpc.Reply[BodyState]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) (BodyState, error) { return s.admin.Bodies(ctx) })
}

// Recode serves BodyAdmin.Recode.
func (s *bodyService) Recode(c *rpc.Call[RecodeRequest], r *rpc.Reply[RecodeReply]) error {
	return rpc.Do(c, r, s.admin.Recode)
}

type remoteBodies struct{ caller rpc.Caller }

// Bodies implements BodyAdmin.
func (a *remoteBodies) Bodies(ctx context.Context) (BodyState, error) {
	return rpc.Invoke[rpc.None, BodyState](ctx, a.caller, "QueueBodies.Bodies", rpc.None{})
}

// Recode implements BodyAdmin.
func (a *remoteBodies) Recode(ctx context.Context, r RecodeRequest) (RecodeReply, error) {
	return rpc.Invoke[RecodeRequest, RecodeReply](ctx, a.caller, "QueueBodies.Recode", r)
}

var _ BodyAdmin = (*remoteBodies)(nil)
