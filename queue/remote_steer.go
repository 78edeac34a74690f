package queue

import (
	"context"

	"tabard/internal/rpc"
)

type findRequest struct {
	Filter Filter
	After  EnvelopeID
	Limit  int
}

type countRequest struct {
	Filter Filter
	By     []Field
	Limit  int
}

// Find serves Admin.Find.
func (s *adminService) Find(c *rpc.Call[findRequest], r *rpc.Reply[Page]) error {
	return rpc.Do(c, r, func(ctx context.Context, req findRequest) (Page, error) {
		p, err := s.admin.Find(ctx, req.Filter, req.After, req.Limit)
		if n := carried(p.List); n < len(p.List) {
			p.List, p.More = p.List[:n], true
		}
		return p, err
	})
}

// carried is how many lines of a listing one answer carries.
func carried(list []Listed) int {
	size := 0
	for i := range list {
		if size += 300 + len(list[i].Sender) + len(list[i].Envelope.HeldFor) + len(list[i].Remote) + len(list[i].Login) + textSize(&list[i].Envelope); i > 0 && size > wireBytes {
			return i
		}
	}
	return len(list)
}

// Count serves Admin.Count.
func (s *adminService) Count(c *rpc.Call[countRequest], r *rpc.Reply[Tally]) error {
	return rpc.Do(c, r, func(ctx context.Context, req countRequest) (Tally, error) {
		t, err := s.admin.Count(ctx, req.Filter, req.By, req.Limit)
		size := 0
		for i := range t.Groups {
			size += 60
			for _, v := range t.Groups[i].Values {
				size += len(v)
			}
			if size > wireBytes {
				t.Groups = t.Groups[:i]
				break
			}
		}
		return t, err
	})
}

// Steer serves Admin.Steer.
func (s *adminService) Steer(c *rpc.Call[Steer], r *rpc.Reply[Steered]) error {
	return rpc.Do(c, r, func(ctx context.Context, req Steer) (Steered, error) { return s.admin.Steer(ctx, req) })
}

// Find implements Admin.
func (a *remoteAdmin) Find(ctx context.Context, f Filter, after EnvelopeID, limit int) (Page, error) {
	return rpc.Invoke[findRequest, Page](ctx, a.caller, "QueueAdmin.Find", findRequest{f, after, limit})
}

// Count implements Admin.
func (a *remoteAdmin) Count(ctx context.Context, f Filter, by []Field, limit int) (Tally, error) {
	return rpc.Invoke[countRequest, Tally](ctx, a.caller, "QueueAdmin.Count", countRequest{f, by, limit})
}

// Steer implements Admin.
func (a *remoteAdmin) Steer(ctx context.Context, s Steer) (Steered, error) {
	return rpc.Invoke[Steer, Steered](ctx, a.caller, "QueueAdmin.Steer", s)
}
