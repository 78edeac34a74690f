package smtpd

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/internal/config"
	"tabard/lookup"
	"tabard/queue"
)

func TestFromConfig(t *testing.T) {
	got := FromConfig(&config.Config{
		SMTP: config.SMTP{MaxMails: 1, MaxRcpt: 2, MaxConnections: 3, MaxErrors: 4, MaxMessageSize: 5, MaxPriority: 6, FutureRelease: 7},
		Listeners: []config.Listener{
			{Host: "127.0.0.1", Port: "25", TLS: config.TLSStart, PKINames: []string{"mx"}, NoDSN: true, NormalizeBareNewline: true},
			{Host: "::1", Port: "465", TLS: config.TLSImplicit, PKITables: []config.TableRef{"t"}, Auth: config.AuthRequire, Senders: "s",
				Hostnames: "h", Tag: "x", Hostname: "n", MaskSource: true, ReceivedAuth: true, Verify: config.VerifyOptional},
			{Socket: true},
		},
	}, "mx.example.org")
	want := Config{
		Hostname: "mx.example.org", MaxMails: 1, MaxRcpt: 2, MaxConnections: 3, MaxErrors: 4, MaxMessageSize: 5, MaxPriority: 6, FutureRelease: 7,
		Listeners: []Listener{
			{Index: 0, Name: "127.0.0.1:25", TLS: config.TLSStart, HasPKI: true, NoDSN: true, NormalizeBareNewline: true},
			{Index: 1, Name: "[::1]:465", TLS: config.TLSImplicit, HasPKI: true, Auth: config.AuthRequire, HasSenders: true, HasHostnames: true,
				Tag: "x", Hostname: "n", MaskSource: true, ReceivedAuth: true, Verify: config.VerifyOptional},
			{Index: 2, Name: "socket", Socket: true},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// The parser has given the global option to the listeners that say nothing
	// else: it must not come back for one that refuses.
	all := FromConfig(&config.Config{SMTP: config.SMTP{NormalizeBareNewline: true}, Listeners: []config.Listener{{}}}, "x")
	if all.Listeners[0].NormalizeBareNewline {
		t.Error("a listener's own reject is overridden")
	}
}

func TestNewRefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	var l lookup.Inbound = &fakeLookup{}
	var q queue.Client = &fakeQueue{}
	good := Config{Hostname: "x", Listeners: []Listener{{}}}
	tests := []struct {
		name string
		cfg  Config
		l    lookup.Inbound
		q    queue.Client
		log  *slog.Logger
	}{
		{"no lookup", good, nil, q, log},
		{"no queue", good, l, nil, log},
		{"no log", good, l, q, nil},
		{"no name", Config{}, l, q, log},
		{"twice", Config{Hostname: "x", Listeners: []Listener{{}, {}}}, l, q, log},
		{"tls without pki", Config{Hostname: "x", Listeners: []Listener{{TLS: config.TLSStart}}}, l, q, log},
	}
	for _, tt := range tests {
		if _, err := New(tt.cfg, tt.l, tt.q, tt.log); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
	s, err := New(good, l, q, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
