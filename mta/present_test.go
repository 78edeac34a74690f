package mta

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"sync/atomic"
	"testing"

	"tabard/lookup"
	"tabard/queue"
)

// The certificate of the action is shown to a server that asks for one.
func TestClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	own := ca.good(t, "us.example.net")
	for _, tt := range []struct {
		name   string
		asks   tls.ClientAuthType
		route  bool // the action has a pki
		own    *tls.Certificate
		scheme lookup.Scheme
		shown  string
		want   queue.Outcome
		text   string
	}{
		{"demanded", tls.RequireAnyClientCert, true, &own, "tls", "us.example.net", queue.Delivered, ""},
		{"demanded, opportunistic", tls.RequireAnyClientCert, true, &own, "smtp+tls", "us.example.net", queue.Delivered, ""},
		{"asked for", tls.RequestClientCert, true, &own, "tls", "us.example.net", queue.Delivered, ""},
		{"not asked for", tls.NoClientCert, true, &own, "tls", "", queue.Delivered, ""},
		{"not asked for, and none there", tls.NoClientCert, true, nil, "tls", "", queue.Delivered, ""},
		{"asked for, none configured", tls.RequestClientCert, false, &own, "tls", "", queue.Delivered, ""},
		{"asked for, none there", tls.RequestClientCert, true, nil, "tls", "", queue.Deferred, "client certificate for relay.example: no certificate"},
		// Nothing goes in clear because our own certificate is missing.
		{"asked for, none there, opportunistic", tls.RequestClientCert, true, nil, "smtp+tls", "", queue.Deferred, "no certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.dns.Zone(t, relayName+". A 192.0.2.25")
			w.lookup.roots.AddCert(ca.cert)
			w.lookup.own = tt.own
			w.lookup.set(lookup.Route{Hosts: []lookup.RelayURL{{Scheme: tt.scheme, Host: relayName, Port: "25"}}, Present: tt.route})
			var shown atomic.Pointer[x509.Certificate]
			cfg := serverTLS(ca.good(t, relayName))
			cfg.ClientAuth = tt.asks
			cfg.VerifyConnection = func(state tls.ConnectionState) error {
				if len(state.PeerCertificates) > 0 {
					shown.Store(state.PeerCertificates[0])
				}
				return nil
			}
			p := newPeer(t)
			p.tls = cfg
			w.at("192.0.2.25:25", p.start())
			wantResult(t, w.start().one("MARK@example.org"), tt.want, 0, tt.text)
			got := ""
			if c := shown.Load(); c != nil {
				got = c.DNSNames[0]
			}
			if got != tt.shown || strings.Contains(w.log.String(), "mta cert-shown") != (tt.shown != "") {
				t.Errorf("shown %q; want %q; log:\n%s", got, tt.shown, w.log)
			}
			if strings.Contains(p.onWire(), "MARK") {
				t.Error("the envelope went in clear")
			}
		})
	}
}
