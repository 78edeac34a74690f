package rpc_test

import (
	"crypto"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/rpc"
	"tabard/lookup"
	"tabard/queue"
)

// contracts are values of every shape that crosses a border.
func contracts() []any {
	when := time.Date(2026, 7, 28, 12, 34, 56, 123456789, time.UTC)
	env := queue.Envelope{
		ID: queue.EnvelopeID{Message: 1<<62 + 12345, N: 7}, Address: "u@example.org", Recipient: "ü@\xff\x00", ORCPT: "rfc822;u",
		Notify: "SUCCESS", Action: "local", Relay: true, User: "u", Created: when, Expires: when.Add(time.Hour), Attempts: 3, Next: when, LastError: "no",
	}
	msg := queue.Message{ID: -1, Sender: "s", Size: 1 << 40, EightBit: true, UTF8: true, Ret: "FULL", EnvID: "e", Session: "x", User: "u", Helo: "h", Remote: "::1", Created: when}
	delivery := &lookup.Delivery{UID: -1, GID: 5, Home: "/h", User: "u", Method: "lmtp", RcptTo: true, Env: []string{"A=b"}}
	target := lookup.Target{Action: "a", Relay: true, Address: "x@y", User: "u"}
	return []any{
		lookup.ConnectRequest{Listener: 3, Remote: netip.MustParseAddrPort("192.0.2.1:25"), Local: netip.MustParseAddrPort("[fe80::1%eth0]:2525")},
		lookup.ConnectRequest{},
		lookup.CertificateRequest{Listener: 1, ServerName: "mx.example.org", Schemes: []uint16{0x0804, 0xffff}, Have: [32]byte{1, 31: 2}},
		lookup.Certificate{Chain: [][]byte{{1, 2}, {}, {3}}, Fingerprint: [32]byte{9}, Handle: "h", Schemes: []uint16{1}},
		lookup.SignRequest{Handle: "h", Digest: []byte{0, 255}, Hash: crypto.SHA512, PSS: true},
		lookup.VerifyRequest{Listener: 1, Action: "out", Use: lookup.UseClient, Name: "n", Chain: [][]byte{{1}}},
		lookup.Verdict{State: lookup.Failed, Identity: "i", Reason: "expired"},
		lookup.RecipientRequest{Session: lookup.Session{ID: "s", Remote: netip.MustParseAddr("::ffff:1.2.3.4"), TLS: true, Peer: lookup.Verdict{State: lookup.Verified}}, Sender: "a", Recipient: "b"},
		lookup.RecipientReply{Code: 550, Enhanced: "5.1.1", Text: "no", Targets: []lookup.Target{target, target}},
		lookup.Route{Hosts: []lookup.RelayURL{{Scheme: lookup.SchemeTLS, Label: "l", Host: "h", Port: "25"}}, TLS: true},
		lookup.ActionInfo{Name: "n", TTL: 96*time.Hour + time.Nanosecond},
		queue.Submission{Message: msg, Recipients: []queue.Envelope{env, {}}},
		queue.Job{Message: msg, Body: []byte("Subject: x\r\n\r\n\x00\xff"), Envelopes: []queue.Envelope{env}, Domain: "d", Delivery: delivery},
		queue.Job{},
		queue.Result{ID: env.ID, Outcome: queue.Deferred, Code: 451, Text: "a\nb", NotBefore: when},
		queue.Shown{Message: msg, Envelopes: []queue.Envelope{env}, Body: []byte{0}, Truncated: true},
		queue.Stats{Messages: 1, Bounced: 1 << 60},
		[]queue.Listed{{Envelope: env, Sender: "s", Size: 1, InFlight: true}},
		[]byte{}, "", 0, rpc.None{}, when, time.Time{}, netip.Addr{}, netip.MustParsePrefix("10.0.0.0/8"),
	}
}

func TestContractsRoundTrip(t *testing.T) {
	c, err := rpc.NewCoding()
	if err != nil {
		t.Fatal(err)
	}
	same := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	for _, want := range contracts() {
		data, err := c.Marshal(want)
		if err != nil {
			t.Errorf("%T: %v", want, err)
			continue
		}
		got := reflect.New(reflect.TypeOf(want))
		if err := c.Unmarshal(data, got.Interface()); err != nil {
			t.Errorf("%T: %v", want, err)
			continue
		}
		if diff := cmp.Diff(want, got.Elem().Interface(), same); diff != "" {
			t.Errorf("%T changed on the way (-sent +received):\n%s", want, diff)
		}
	}
}

func BenchmarkCoding(b *testing.B) {
	c, err := rpc.NewCoding()
	if err != nil {
		b.Fatal(err)
	}
	req := lookup.SignRequest{Handle: "sha256:0123456789abcdef", Digest: make([]byte, 32), Hash: crypto.SHA256}
	b.ReportAllocs()
	for b.Loop() {
		data, err := c.Marshal(req)
		if err != nil {
			b.Fatal(err)
		}
		var got lookup.SignRequest
		if err := c.Unmarshal(data, &got); err != nil {
			b.Fatal(err)
		}
	}
}
