package deliver

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"tabard/internal/address"
	"tabard/lookup"
	"tabard/queue"
)

// parcel is one message for one envelope, with the way it goes.
type parcel struct {
	msg  queue.Message
	env  queue.Envelope
	how  *lookup.Delivery // nil only when the queue is at fault
	body *body
	seen headerFacts // of the message, after examine
}

func newParcel(w queue.Worker, job queue.Job, env queue.Envelope) *parcel {
	return &parcel{msg: job.Message, env: env, how: job.Delivery, body: newBody(w, job)}
}

func (p *parcel) user() string {
	if p.how != nil && p.how.User != "" {
		return address.OneLine(p.how.User, maxText)
	}
	return address.OneLine(p.env.User, maxText)
}

// deliver makes one attempt.
func (a *agent) deliver(ctx context.Context, p *parcel) status {
	if err := a.refuse(p); err != nil {
		return statusOf(err)
	}
	seen, err := p.body.examine(ctx, p.env.Address)
	if err != nil {
		return statusOf(fmt.Errorf("read header: %w", err))
	}
	if p.seen = seen; seen.loop {
		return failed("5.4.6", "mail loop: the message was delivered to <%s> before", p.env.Address)
	}
	switch p.how.Method {
	case "maildir":
		return statusOf(a.maildir(ctx, p))
	case "mbox":
		return statusOf(a.mbox(ctx, p))
	case "mda":
		return a.command(ctx, p)
	case "lmtp":
		return a.lmtpDeliver(ctx, p)
	}
	return failed("5.3.5", "unknown delivery method %q", p.how.Method)
}

// refuse says why an envelope cannot be delivered at all, or not here.
func (a *agent) refuse(p *parcel) error {
	switch {
	case p.how == nil:
		return refusal{deferred("4.3.0", "not a job for local delivery")}
	case p.how.Gone:
		text := p.how.Text
		if text == "" {
			text = "the user or the action is gone"
		}
		return refusal{failed("5.1.1", "%s", text)}
	case p.how.UID >= 0 && p.how.UID != a.uid && !a.opt.AnyUser:
		return refusal{deferred("4.3.0", "delivery as uid %d, but this process has uid %d", p.how.UID, a.uid)}
	}
	return nil
}

// checkPath refuses paths that could leave the place the administrator meant.
func checkPath(kind, path string) error {
	switch {
	case !filepath.IsAbs(path):
		return refusal{failed("5.3.5", "%s path %q is not absolute", kind, path)}
	case strings.ContainsRune(path, 0):
		return refusal{failed("5.3.5", "%s path holds a NUL", kind)}
	case slices.Contains(strings.Split(path, "/"), ".."):
		return refusal{failed("5.3.5", "%s path %q has a .. element", kind, path)}
	}
	return nil
}
