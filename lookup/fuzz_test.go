package lookup

import (
	"context"
	"crypto"
	"net/netip"
	"testing"

	"tabard/internal/rpc"
	"tabard/table"
)

// FuzzRequests feeds what a hostile smtpd or mta may send, through the decoder
// that the process border uses, to every handler. None may panic.
func FuzzRequests(f *testing.F) {
	fix := newFixture(f)
	fix.table("virtuals").set(table.Alias, "a@v.example", "u1, x@relayed.example, error:550 no")
	fix.table("users").set(table.UserInfo, "u1", "1:1:/")
	s := fix.service(expandConf)
	coding, err := rpc.NewCoding()
	if err != nil {
		f.Fatal(err)
	}
	add := func(kind byte, v any) {
		data, err := coding.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, data)
	}
	add(0, RecipientRequest{Session: session(), Sender: "a@b.example", Recipient: "a@v.example"})
	add(1, CertificateRequest{ServerName: "x.example", Schemes: []uint16{1, 2}})
	add(2, SignRequest{Handle: "s.x", Digest: make([]byte, 32), Hash: crypto.SHA256})
	add(3, VerifyRequest{Use: UseClient, Chain: [][]byte{{1}}})
	add(4, ConnectRequest{Local: netip.MustParseAddrPort("[::1]:25"), Remote: netip.MustParseAddrPort("[fe80::1%x]:25")})
	add(5, SenderRequest{User: "a", Sender: "b"})
	add(6, RouteRequest{Action: "out", Domain: "x.example", Sender: "a@b"})
	add(7, DeliveryRequest{Action: "alias", User: "u1", Address: "a@v.example", Recipient: "b@v.example", Sender: "c@d"})
	add(8, "a@v.example")
	add(9, CredentialsRequest{Action: "out", Label: "x"})
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		handlers := []func(context.Context, *rpc.Coding, []byte) error{
			handler(s.Recipient), handler(s.Certificate), handler(s.Sign), handler(s.Verify), handler(s.Connect), handler(s.Sender),
			handler(s.Route), handler(s.Delivery), handler(s.Bounce), handler(s.RelayCredentials),
		}
		// An error is an answer too; a panic is what is looked for.
		_ = handlers[int(kind)%len(handlers)](t.Context(), coding, data)
	})
}

func handler[Req, Resp any](f func(context.Context, Req) (Resp, error)) func(context.Context, *rpc.Coding, []byte) error {
	return func(ctx context.Context, c *rpc.Coding, data []byte) error {
		var req Req
		if err := c.Unmarshal(data, &req); err != nil {
			return err
		}
		_, err := f(ctx, req)
		return err
	}
}
