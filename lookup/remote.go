package lookup

import (
	"context"

	"tabard/internal/rpc"
)

// The names under which each part of the service is registered. A process is
// given a connection on which its part alone is served.
const (
	nameInbound  = "Inbound"
	nameOutbound = "Outbound"
	nameLocal    = "Local"
)

// NewInbound returns smtpd's end of the edge to lookup. Every question is asked
// again, within its context, when lookup is restarted meanwhile.
func NewInbound(c rpc.Caller) Inbound { return remoteInbound{c} }

// NewOutbound returns mta's end of the edge to lookup.
func NewOutbound(c rpc.Caller) Outbound { return remoteOutbound{c} }

// NewLocal returns queue's end of the edge to lookup.
func NewLocal(c rpc.Caller) Local { return remoteLocal{c} }

type remoteInbound struct{ c rpc.Caller }

// Connect implements Inbound.
func (r remoteInbound) Connect(ctx context.Context, req ConnectRequest) (ConnectReply, error) {
	return rpc.InvokeRetry[ConnectRequest, ConnectReply](ctx, r.c, "Inbound.Connect", req)
}

// Certificate implements Inbound.
func (r remoteInbound) Certificate(ctx context.Context, req CertificateRequest) (Certificate, error) {
	return rpc.InvokeRetry[CertificateRequest, Certificate](ctx, r.c, "Inbound.Certificate", req)
}

// Sign implements Inbound. A restarted lookup does not know the handles of the
// one before, so that asking again would bring nothing.
func (r remoteInbound) Sign(ctx context.Context, req SignRequest) ([]byte, error) {
	return rpc.Invoke[SignRequest, []byte](ctx, r.c, "Inbound.Sign", req)
}

// Identify implements Inbound.
func (r remoteInbound) Identify(ctx context.Context, req VerifyRequest) (Identity, error) {
	return rpc.InvokeRetry[VerifyRequest, Identity](ctx, r.c, "Inbound.Identify", req)
}

// Authenticate implements Inbound.
func (r remoteInbound) Authenticate(ctx context.Context, req AuthRequest) (AuthReply, error) {
	return rpc.InvokeRetry[AuthRequest, AuthReply](ctx, r.c, "Inbound.Authenticate", req)
}

// Sender implements Inbound.
func (r remoteInbound) Sender(ctx context.Context, req SenderRequest) (SenderReply, error) {
	return rpc.InvokeRetry[SenderRequest, SenderReply](ctx, r.c, "Inbound.Sender", req)
}

// Recipient implements Inbound.
func (r remoteInbound) Recipient(ctx context.Context, req RecipientRequest) (RecipientReply, error) {
	return rpc.InvokeRetry[RecipientRequest, RecipientReply](ctx, r.c, "Inbound.Recipient", req)
}

type remoteOutbound struct{ c rpc.Caller }

// Route implements Outbound.
func (r remoteOutbound) Route(ctx context.Context, req RouteRequest) (Route, error) {
	return rpc.InvokeRetry[RouteRequest, Route](ctx, r.c, "Outbound.Route", req)
}

// Certificate implements Outbound.
func (r remoteOutbound) Certificate(ctx context.Context, req CertificateRequest) (Certificate, error) {
	return rpc.InvokeRetry[CertificateRequest, Certificate](ctx, r.c, "Outbound.Certificate", req)
}

// Sign implements Outbound.
func (r remoteOutbound) Sign(ctx context.Context, req SignRequest) ([]byte, error) {
	return rpc.Invoke[SignRequest, []byte](ctx, r.c, "Outbound.Sign", req)
}

// Verify implements Outbound.
func (r remoteOutbound) Verify(ctx context.Context, req VerifyRequest) (Verdict, error) {
	return rpc.InvokeRetry[VerifyRequest, Verdict](ctx, r.c, "Outbound.Verify", req)
}

// DKIM implements Outbound.
func (r remoteOutbound) DKIM(ctx context.Context, req DKIMRequest) ([]DKIMKey, error) {
	return rpc.InvokeRetry[DKIMRequest, []DKIMKey](ctx, r.c, "Outbound.DKIM", req)
}

// RelayCredentials implements Outbound.
func (r remoteOutbound) RelayCredentials(ctx context.Context, req CredentialsRequest) (Credentials, error) {
	return rpc.InvokeRetry[CredentialsRequest, Credentials](ctx, r.c, "Outbound.RelayCredentials", req)
}

type remoteLocal struct{ c rpc.Caller }

// Delivery implements Local.
func (r remoteLocal) Delivery(ctx context.Context, req DeliveryRequest) (Delivery, error) {
	return rpc.InvokeRetry[DeliveryRequest, Delivery](ctx, r.c, "Local.Delivery", req)
}

// Bounce implements Local.
func (r remoteLocal) Bounce(ctx context.Context, recipient string) (RecipientReply, error) {
	return rpc.InvokeRetry[string, RecipientReply](ctx, r.c, "Local.Bounce", recipient)
}

// Redirect implements Local.
func (r remoteLocal) Redirect(ctx context.Context, req RedirectRequest) (RecipientReply, error) {
	return rpc.InvokeRetry[RedirectRequest, RecipientReply](ctx, r.c, "Local.Redirect", req)
}

// Actions implements Local.
func (r remoteLocal) Actions(ctx context.Context) ([]ActionInfo, error) {
	return rpc.InvokeRetry[rpc.None, []ActionInfo](ctx, r.c, "Local.Actions", rpc.None{})
}

var (
	_ Inbound  = remoteInbound{}
	_ Outbound = remoteOutbound{}
	_ Local    = remoteLocal{}
)
