package lookup

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"tabard/internal/rpc"
	"tabard/table"
)

// handles puts a certificate of a kind into a service and returns its handles.
func handles(t testing.TB, kind string) (s *Service, server, client string, public crypto.PublicKey) {
	t.Helper()
	f := newFixture(t)
	s = f.service(certConf)
	chain, key := newAuthority(t, "CA", nil).server(kind, nil, "mx.example.org")
	f.table("certs").set(table.Cert, "mx.example.org", chain, key)
	f.table("certs").set(table.Cert, "client.example.org", chain, key)
	a, err := s.Certificate(t.Context(), CertificateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Certificate(t.Context(), CertificateRequest{Action: "out"})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(a.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return s, a.Handle, b.Handle, leaf.PublicKey
}

func TestSignRefuses(t *testing.T) {
	digest := sha256.Sum256([]byte("x"))
	tls13 := func(side string) []byte {
		return []byte(strings.Repeat(" ", 64) + "TLS 1.3, " + side + " CertificateVerify\x00" + strings.Repeat("h", 32))
	}
	tls12 := []byte(strings.Repeat("r", 64) + "\x03\x00\x1d\x20" + strings.Repeat("p", 32))
	transcript := append([]byte{1, 0, 0, 8}, "12345678"...)
	tests := []struct {
		name, kind string
		req        SignRequest
		client     bool
		ok         bool
	}{
		{"ecdsa", "ecdsa", SignRequest{Digest: digest[:], Hash: crypto.SHA256}, false, true},
		{"ecdsa raw", "ecdsa", SignRequest{Digest: digest[:]}, false, false},
		{"ecdsa short", "ecdsa", SignRequest{Digest: digest[:20], Hash: crypto.SHA256}, false, false},
		{"ecdsa SHA-1", "ecdsa", SignRequest{Digest: digest[:20], Hash: crypto.SHA1}, false, false},
		{"ecdsa PSS", "ecdsa", SignRequest{Digest: digest[:], Hash: crypto.SHA256, PSS: true}, false, false},
		{"ecdsa of nothing", "ecdsa", SignRequest{Hash: crypto.SHA256}, false, false},
		{"rsa", "rsa", SignRequest{Digest: digest[:], Hash: crypto.SHA256}, false, true},
		{"rsa PSS", "rsa", SignRequest{Digest: digest[:], Hash: crypto.SHA256, PSS: true}, false, true},
		{"rsa raw PKCS#1", "rsa", SignRequest{Digest: digest[:]}, false, false},
		{"rsa MD5+SHA1", "rsa", SignRequest{Digest: make([]byte, 36), Hash: crypto.MD5SHA1}, false, false},
		{"rsa MD5", "rsa", SignRequest{Digest: digest[:16], Hash: crypto.MD5}, false, false},
		{"rsa SHA-224", "rsa", SignRequest{Digest: digest[:28], Hash: crypto.SHA224}, false, false},
		{"rsa nonsense hash", "rsa", SignRequest{Digest: digest[:], Hash: crypto.Hash(1 << 40)}, false, false},
		{"ed25519 TLS 1.3", "ed25519", SignRequest{Digest: tls13("server")}, false, true},
		{"ed25519 TLS 1.3 client", "ed25519", SignRequest{Digest: tls13("client")}, true, true},
		{"ed25519 in the other's role", "ed25519", SignRequest{Digest: tls13("client")}, false, false},
		{"ed25519 client in the server's role", "ed25519", SignRequest{Digest: tls13("server")}, true, false},
		{"ed25519 TLS 1.2", "ed25519", SignRequest{Digest: tls12}, false, true},
		{"ed25519 TLS 1.2 client", "ed25519", SignRequest{Digest: transcript}, true, true},
		{"ed25519 transcript as server", "ed25519", SignRequest{Digest: transcript}, false, false},
		{"ed25519 anything", "ed25519", SignRequest{Digest: []byte("pay 100 to bob")}, false, false},
		{"ed25519 anything as client", "ed25519", SignRequest{Digest: []byte("pay 100 to bob")}, true, false},
		{"ed25519 with hash", "ed25519", SignRequest{Digest: digest[:], Hash: crypto.SHA256}, false, false},
		{"ed25519 huge", "ed25519", SignRequest{Digest: append([]byte{1}, make([]byte, maxMessage)...)}, true, false},
		{"ed25519 nothing", "ed25519", SignRequest{}, false, false},
	}
	for _, tt := range tests {
		s, server, client, public := handles(t, tt.kind)
		in, out, _ := edges(t, s)
		tt.req.Handle = server
		var holder KeyHolder = in
		if tt.client {
			tt.req.Handle, holder = client, out
		}
		sig, err := holder.Sign(t.Context(), tt.req)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil && !verifies(public, tt.req, sig) {
			t.Errorf("%s: the signature does not verify", tt.name)
		}
	}
}

func verifies(public crypto.PublicKey, r SignRequest, sig []byte) bool {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, r.Digest, sig)
	case *rsa.PublicKey:
		if r.PSS {
			return rsa.VerifyPSS(key, r.Hash, r.Digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(key, r.Hash, r.Digest, sig) == nil
	}
	return len(sig) == 64
}

// A handle signs for the process and the use that it was given out for, and for
// nothing else.
func TestHandlesAreBound(t *testing.T) {
	s, server, client, _ := handles(t, "ecdsa")
	in, out, _ := edges(t, s)
	digest := sha256.Sum256(nil)
	ask := func(k KeyHolder, handle string) error {
		_, err := k.Sign(t.Context(), SignRequest{Handle: handle, Digest: digest[:], Hash: crypto.SHA256})
		return err
	}
	if err := ask(in, server); err != nil {
		t.Errorf("smtpd: %v", err)
	}
	if err := ask(out, client); err != nil {
		t.Errorf("mta: %v", err)
	}
	if err := ask(out, server); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("mta with smtpd's handle: %v", err)
	}
	if err := ask(in, client); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("smtpd with mta's handle: %v", err)
	}
	for _, handle := range []string{"", "s.", "x", "s.AAAAAAAAAAAAAAAAAAAAAAAAAA", "c" + server[1:], strings.Repeat("s.", 1000), server + "x", server[:len(server)-1]} {
		if ask(in, handle) == nil || ask(out, handle) == nil {
			t.Errorf("handle %.40q signs", handle)
		}
	}
}

// What is asked of an edge for the other side is refused there.
func TestEdgesRefuse(t *testing.T) {
	s, _, _, _ := handles(t, "ecdsa")
	in, out, local := edges(t, s)
	if _, err := in.Certificate(t.Context(), CertificateRequest{Action: "out"}); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("smtpd asks for a client certificate: %v", err)
	}
	if _, err := out.Certificate(t.Context(), CertificateRequest{}); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("mta asks for a server certificate: %v", err)
	}
	if _, err := in.Identify(t.Context(), VerifyRequest{Use: UseServer, Chain: [][]byte{{1}}}); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("smtpd verifies a server: %v", err)
	}
	if _, err := out.Verify(t.Context(), VerifyRequest{Use: UseClient, Chain: [][]byte{{1}}}); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("mta verifies a client: %v", err)
	}
	if r, err := local.Bounce(t.Context(), "x@d.example"); err != nil || len(r.Targets) != 1 || r.Targets[0].Action != "out" {
		t.Errorf("Bounce = %+v, %v", r, err)
	}
	if infos, err := local.Actions(t.Context()); err != nil || len(infos) != 2 {
		t.Errorf("Actions = %+v, %v", infos, err)
	}
	if d, err := local.Delivery(t.Context(), DeliveryRequest{Action: "nosuch"}); err == nil || d.Gone {
		t.Errorf("Delivery = %+v, %v", d, err)
	}
	if r, err := out.Route(t.Context(), RouteRequest{Action: "out", Domain: "d.example"}); err != nil || !r.Present || r.Helo != "client.example.org" {
		t.Errorf("Route = %+v, %v", r, err)
	}
	if _, err := out.RelayCredentials(t.Context(), CredentialsRequest{"out", "x"}); err == nil {
		t.Error("credentials without an auth table")
	}
	if r, err := in.Recipient(t.Context(), RecipientRequest{Recipient: "x@d.example"}); err != nil || len(r.Targets) != 1 {
		t.Errorf("Recipient = %+v, %v", r, err)
	}
	if r, err := in.Connect(t.Context(), ConnectRequest{}); err != nil || r.Hostname != "mx.example.org" {
		t.Errorf("Connect = %+v, %v", r, err)
	}
	if r, err := in.Sender(t.Context(), SenderRequest{}); err != nil || !r.Allowed {
		t.Errorf("Sender = %+v, %v", r, err)
	}
	if _, err := in.Authenticate(t.Context(), AuthRequest{User: "a", Password: "b"}); err == nil {
		t.Error("authenticated without auth")
	}
}

func BenchmarkSign(b *testing.B) {
	digest := sha256.Sum256(nil)
	for _, kind := range []string{"ecdsa", "rsa"} {
		s, server, _, _ := handles(b, kind)
		in, _, _ := edges(b, s)
		r := SignRequest{Handle: server, Digest: digest[:], Hash: crypto.SHA256, PSS: kind == "rsa"}
		for name, k := range map[string]KeyHolder{"direct": s, "rpc": in} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				for b.Loop() {
					if _, err := k.Sign(b.Context(), r); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
