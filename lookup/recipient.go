package lookup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tabard/internal/address"
)

// Bounds on what other processes send, in bytes.
const (
	maxAddress = 1024 // an envelope address
	maxName    = 1024 // a host name, user name or label
	shownLen   = 300  // of an address in a reply
)

// refusal is a permanent or temporary SMTP reply that the tables or rules call
// for. It is an answer, not a failure.
type refusal struct {
	code     int
	enhanced string
	text     string // empty: "Invalid recipient: <as given>", then suffix
	suffix   string
	cause    string // for the log, when the text does not tell it
	rule     string // position of the rule that decided; empty: the first address's
}

// Error lets a refusal end an expansion like an error.
func (r *refusal) Error() string {
	return fmt.Sprintf("%d %s %s%s", r.code, r.enhanced, r.text, r.suffix)
}

// Recipient implements Inbound.
//
// Every refusal says "Invalid recipient: <address>", as OpenSMTPD does, so that
// one search of the log finds them all; a stranger's attempt to relay adds
// "relaying denied". The enhanced code tells them apart: 5.1.1 for a user who
// does not exist, 5.1.3 for a malformed address, 5.7.1 for policy.
func (s *Service) Recipient(ctx context.Context, r RecipientRequest) (RecipientReply, error) {
	return s.recipient(ctx, r, nil)
}

// recipient is Recipient, which a tracer may look on.
func (s *Service) recipient(ctx context.Context, r RecipientRequest, t *tracer) (RecipientReply, error) {
	if err := s.checkSession(&r.Session); err != nil {
		return RecipientReply{}, err
	}
	if len(r.Sender) > maxAddress || len(r.Recipient) > maxAddress {
		return RecipientReply{Code: 553, Enhanced: "5.1.3", Text: "Invalid recipient: address too long"}, nil
	}
	return sure(ctx, refuses, func(ctx context.Context) (RecipientReply, error) {
		return s.expand(ctx, &expansion{session: &r.Session, sender: r.Sender, tracer: t}, r.Recipient)
	})
}

// Bounce implements Local.
func (s *Service) Bounce(ctx context.Context, recipient string) (RecipientReply, error) {
	if len(recipient) > maxAddress {
		return RecipientReply{Code: 553, Enhanced: "5.1.3", Text: "Invalid recipient: address too long"}, nil
	}
	return sure(ctx, refuses, func(ctx context.Context) (RecipientReply, error) {
		return s.expand(ctx, &expansion{session: &Session{Listener: -1}, internal: true}, recipient)
	})
}

// Redirect implements Local.
func (s *Service) Redirect(ctx context.Context, r RedirectRequest) (RecipientReply, error) {
	return s.Recipient(ctx, RecipientRequest{
		Session: Session{ID: "redirect", Listener: -1, Socket: true}, Sender: r.Sender, Recipient: r.Recipient,
	})
}

// expand runs an expansion from its first address and makes the reply.
func (s *Service) expand(ctx context.Context, x *expansion, recipient string) (RecipientReply, error) {
	began := time.Now()
	x.s = s
	if l, err := s.listener(x.session.Listener); err == nil {
		x.tag = l.Tag
	}
	addr, err := s.parseRecipient(recipient)
	if err != nil {
		return RecipientReply{Code: 553, Enhanced: "5.1.3", Text: invalidRecipient(recipient)}, nil
	}
	err = x.run(ctx, addr)
	var no *refusal
	switch {
	case errors.As(err, &no):
		return s.refuse(x, recipient, no), nil
	case err != nil:
		return RecipientReply{}, fmt.Errorf("recipient %.300q: %w", recipient, err)
	}
	return RecipientReply{Rule: x.rule, Targets: x.targets, Match: x.matched, Expand: time.Since(began) - x.matched}, nil
}

// refuse makes the reply of a refusal. Strangers are told their own recipient
// only; which member of a list was at fault is for the log.
func (s *Service) refuse(x *expansion, recipient string, no *refusal) RecipientReply {
	x.tracer.refused(no)
	if no.cause != "" {
		s.log.Warn("expansion refused", "session", x.session.ID, "to", recipient, "cause", no.cause)
	}
	reply := RecipientReply{Code: no.code, Enhanced: no.enhanced, Text: no.text, Rule: no.rule}
	if reply.Text == "" {
		reply.Text = invalidRecipient(recipient) + no.suffix
	}
	if reply.Rule == "" {
		reply.Rule = x.rule
	}
	return reply
}

// parseRecipient reads an address; one without a domain is of this server.
func (s *Service) parseRecipient(text string) (address.Address, error) {
	a, err := address.Parse(text)
	if err != nil {
		return a, err
	}
	if a.Domain == "" {
		a.Domain = s.hostname
	}
	return a, nil
}

func (s *Service) checkSession(sess *Session) error {
	if sess.Socket && sess.Listener == -1 {
		return nil
	}
	if _, err := s.listener(sess.Listener); err != nil {
		return err
	}
	if len(sess.RDNS) > maxName || len(sess.Helo) > maxName || len(sess.User) > maxName {
		return errors.New("session: name too long")
	}
	return nil
}

func invalidRecipient(addr string) string {
	return "Invalid recipient: <" + address.OneLine(addr, shownLen) + ">"
}
