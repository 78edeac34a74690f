package queue

import (
	"context"
	"fmt"
	"time"

	"tabard/internal/address"
	"tabard/internal/rpc"
	"tabard/lookup"
)

// redirectWait bounds what the rules are asked for one recipient.
const redirectWait = 30 * time.Second

// redirection is where the mail of one sender goes instead.
type redirection struct {
	targets []lookup.Target
	refused string
}

// Attached is an envelope that a message in the store gets in addition.
type Attached struct {
	Message *Message
	NewEnvelope
}

// checkRedirect refuses what leads nowhere before anything is looked at.
func (q *Queue) checkRedirect(ctx context.Context, s *Steer) error {
	if (s.Action == "") == (s.To == "") {
		return fmt.Errorf("%w: redirect needs an action or a recipient", rpc.ErrInvalid)
	}
	if s.To != "" {
		if _, err := address.Parse(s.To); err != nil || len(s.To) > maxText {
			return fmt.Errorf("%w: redirect to %.80q: %w", rpc.ErrInvalid, s.To, err)
		}
		return nil
	}
	q.actions.renew(ctx)
	if _, ok := q.actions.lookup(s.Action); !ok {
		return fmt.Errorf("%w: there is no action %.80q", rpc.ErrInvalid, s.Action)
	}
	return nil
}

// planRedirect replaces an envelope by those that the rules, or an action, make of
// it. It keeps the time that it has left, and begins anew otherwise.
func (q *Queue) planRedirect(ctx context.Context, s *Steer, p *page, r *Stored) (why string, err error) {
	to, why, err := q.redirection(ctx, s, p, r)
	if why != "" || err != nil {
		return why, err
	}
	now := p.change.DueAt
	expires := r.Expires
	if least := now.Add(ReleaseGrace); r.Hold != 0 && expires.Before(least) {
		expires = least
	}
	n, err := q.freeNumber(ctx, p, r.ID.Message)
	if err != nil {
		return "", err
	}
	for i := range to {
		e := r.Envelope
		e.ID.N = n + i
		e.Address, e.Action, e.Relay, e.User = to[i].Address, to[i].Action, to[i].Relay, to[i].User
		e.Attempts, e.LastError, e.Held, e.HeldFor = 0, "", false, ""
		if e.Next, e.Expires = now, expires; r.Created.After(now) {
			e.Next = r.Created // it is to be held until then (RFC 4865)
		}
		if err := e.check(); err != nil {
			return fmt.Sprintf("what the rules make of it is refused: %v", err), nil
		}
		p.change.Attach = append(p.change.Attach, Attached{r.Message, NewEnvelope{
			Envelope: e, Destination: destinationKey(&e, q.actions.get(ctx, e.Action).Host), Lane: r.Lane,
		}})
	}
	p.change.Remove = append(p.change.Remove, r.ID)
	r.Next = now
	return "", nil
}

func (q *Queue) redirection(ctx context.Context, s *Steer, p *page, r *Stored) (to []lookup.Target, why string, err error) {
	if s.Action != "" {
		info, _ := q.actions.lookup(s.Action)
		switch {
		case r.Action == s.Action:
			return nil, "that is its action already", nil
		case !info.Relay && r.User == "":
			return nil, "a local action needs a user, whom only the rules know: redirect it to a recipient", nil
		}
		t := lookup.Target{Action: s.Action, Relay: info.Relay, Address: r.Address, User: r.User}
		if t.Relay {
			t.User = ""
		}
		return []lookup.Target{t}, "", nil
	}
	known := p.fresh[r.Message.Sender]
	if known == nil {
		ctx, cancel := context.WithTimeout(ctx, redirectWait)
		defer cancel()
		reply, err := q.local.Redirect(ctx, lookup.RedirectRequest{Sender: r.Message.Sender, Recipient: s.To})
		if err != nil {
			return nil, "", fmt.Errorf("recipient %s: %w", s.To, err)
		}
		known = &redirection{targets: reply.Targets}
		if reply.Code != 0 || len(reply.Targets) == 0 {
			known.refused = "the rules refuse that recipient: " + replyText(reply.Code, reply.Enhanced, reply.Text)
		}
		p.fresh[r.Message.Sender] = known
	}
	return known.targets, known.refused, nil
}

// freeNumber returns a number from which no envelope of a message has one.
func (q *Queue) freeNumber(ctx context.Context, p *page, id MessageID) (int, error) {
	n := 0
	rows, err := q.store.Envelopes(ctx, id)
	if err != nil {
		return 0, err
	}
	for i := range rows {
		n = max(n, rows[i].ID.N+1)
	}
	for i := range p.change.Attach {
		if e := &p.change.Attach[i]; e.ID.Message == id {
			n = max(n, e.ID.N+1)
		}
	}
	a := q.active
	a.mu.Lock()
	defer a.mu.Unlock()
	for other := range a.items { // one that was removed may still be with a worker
		if other.Message == id {
			n = max(n, other.N+1)
		}
	}
	return n, nil
}
