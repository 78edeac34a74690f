package lookup

import (
	"context"
	"fmt"

	"tabard/internal/rpc"
)

// RegisterInbound serves what smtpd may ask. Requests are hostile until
// checked: smtpd gets server certificates and signatures for them, and has
// clients verified, nothing else.
func RegisterInbound(s *rpc.Server, in Inbound) error {
	return s.Register(nameInbound, &inboundEdge{in})
}

// RegisterOutbound serves what mta may ask: client certificates, signatures for
// them and for mail, and the verification of servers.
func RegisterOutbound(s *rpc.Server, out Outbound) error {
	return s.Register(nameOutbound, &outboundEdge{out})
}

// RegisterLocal serves what queue may ask.
func RegisterLocal(s *rpc.Server, l Local) error {
	return s.Register(nameLocal, &localEdge{l})
}

type inboundEdge struct{ in Inbound }

// Connect serves Inbound.Connect.
func (e *inboundEdge) Connect(c *rpc.Call[ConnectRequest], r *rpc.Reply[ConnectReply]) error {
	return rpc.Do(c, r, e.in.Connect)
}

// Certificate serves Inbound.Certificate.
func (e *inboundEdge) Certificate(c *rpc.Call[CertificateRequest], r *rpc.Reply[Certificate]) error {
	return rpc.Do(c, r, func(ctx context.Context, req CertificateRequest) (Certificate, error) {
		if req.Action != "" {
			return Certificate{}, fmt.Errorf("%w: action in a server's request", rpc.ErrInvalid)
		}
		return e.in.Certificate(ctx, req)
	})
}

// Sign serves Inbound.Sign.
func (e *inboundEdge) Sign(c *rpc.Call[SignRequest], r *rpc.Reply[[]byte]) error {
	return rpc.Do(c, r, func(ctx context.Context, req SignRequest) ([]byte, error) {
		if err := checkHandle(req.Handle, UseServer); err != nil {
			return nil, fmt.Errorf("%w: %w", rpc.ErrInvalid, err)
		}
		return e.in.Sign(ctx, req)
	})
}

// Identify serves Inbound.Identify.
func (e *inboundEdge) Identify(c *rpc.Call[VerifyRequest], r *rpc.Reply[Identity]) error {
	return rpc.Do(c, r, func(ctx context.Context, req VerifyRequest) (Identity, error) {
		if req.Use != UseClient || req.Action != "" {
			return Identity{}, fmt.Errorf("%w: not a client's certificate", rpc.ErrInvalid)
		}
		return e.in.Identify(ctx, req)
	})
}

// Authenticate serves Inbound.Authenticate.
func (e *inboundEdge) Authenticate(c *rpc.Call[AuthRequest], r *rpc.Reply[AuthReply]) error {
	return rpc.Do(c, r, e.in.Authenticate)
}

// Sender serves Inbound.Sender.
func (e *inboundEdge) Sender(c *rpc.Call[SenderRequest], r *rpc.Reply[SenderReply]) error {
	return rpc.Do(c, r, e.in.Sender)
}

// Recipient serves Inbound.Recipient.
func (e *inboundEdge) Recipient(c *rpc.Call[RecipientRequest], r *rpc.Reply[RecipientReply]) error {
	return rpc.Do(c, r, e.in.Recipient)
}

type outboundEdge struct{ out Outbound }

// Route serves Outbound.Route.
func (e *outboundEdge) Route(c *rpc.Call[RouteRequest], r *rpc.Reply[Route]) error {
	return rpc.Do(c, r, e.out.Route)
}

// Certificate serves Outbound.Certificate.
func (e *outboundEdge) Certificate(c *rpc.Call[CertificateRequest], r *rpc.Reply[Certificate]) error {
	return rpc.Do(c, r, func(ctx context.Context, req CertificateRequest) (Certificate, error) {
		if req.Action == "" {
			return Certificate{}, fmt.Errorf("%w: no action in a client's request", rpc.ErrInvalid)
		}
		return e.out.Certificate(ctx, req)
	})
}

// Sign serves Outbound.Sign.
func (e *outboundEdge) Sign(c *rpc.Call[SignRequest], r *rpc.Reply[[]byte]) error {
	return rpc.Do(c, r, func(ctx context.Context, req SignRequest) ([]byte, error) {
		if err := checkHandle(req.Handle, UseClient, UseDKIM); err != nil {
			return nil, fmt.Errorf("%w: %w", rpc.ErrInvalid, err)
		}
		return e.out.Sign(ctx, req)
	})
}

// Verify serves Outbound.Verify.
func (e *outboundEdge) Verify(c *rpc.Call[VerifyRequest], r *rpc.Reply[Verdict]) error {
	return rpc.Do(c, r, func(ctx context.Context, req VerifyRequest) (Verdict, error) {
		if req.Use != UseServer {
			return Verdict{}, fmt.Errorf("%w: not a server's certificate", rpc.ErrInvalid)
		}
		return e.out.Verify(ctx, req)
	})
}

// DKIM serves Outbound.DKIM.
func (e *outboundEdge) DKIM(c *rpc.Call[DKIMRequest], r *rpc.Reply[[]DKIMKey]) error {
	return rpc.Do(c, r, e.out.DKIM)
}

// RelayCredentials serves Outbound.RelayCredentials.
func (e *outboundEdge) RelayCredentials(c *rpc.Call[CredentialsRequest], r *rpc.Reply[Credentials]) error {
	return rpc.Do(c, r, e.out.RelayCredentials)
}

type localEdge struct{ l Local }

// Delivery serves Local.Delivery.
func (e *localEdge) Delivery(c *rpc.Call[DeliveryRequest], r *rpc.Reply[Delivery]) error {
	return rpc.Do(c, r, e.l.Delivery)
}

// Bounce serves Local.Bounce.
func (e *localEdge) Bounce(c *rpc.Call[string], r *rpc.Reply[RecipientReply]) error {
	return rpc.Do(c, r, e.l.Bounce)
}

// Redirect serves Local.Redirect.
func (e *localEdge) Redirect(c *rpc.Call[RedirectRequest], r *rpc.Reply[RecipientReply]) error {
	return rpc.Do(c, r, e.l.Redirect)
}

// Actions serves Local.Actions.
func (e *localEdge) Actions(c *rpc.Call[rpc.None], r *rpc.Reply[[]ActionInfo]) error {
	return rpc.Do(c, r, func(ctx context.Context, _ rpc.None) ([]ActionInfo, error) { return e.l.Actions(ctx) })
}
