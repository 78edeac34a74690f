package smtpd

import (
	"crypto/tls"
	"testing"

	"tabard/internal/config"
	"tabard/internal/tlsopt"
)

// What `protocols` and `ciphers` leave out is not agreed on.
func TestHandshakeOptions(t *testing.T) {
	const gcm = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	tests := []struct {
		name    string
		options tlsopt.Options
		client  *tls.Config
		ok      bool
	}{
		{"1.3 only, 1.2 client", tlsopt.Options{Min: tls.VersionTLS13, Max: tls.VersionTLS13}, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		{"1.2 only, 1.3 client", tlsopt.Options{Min: tls.VersionTLS12, Max: tls.VersionTLS12}, &tls.Config{MinVersion: tls.VersionTLS13}, false},
		{"1.2 only", tlsopt.Options{Min: tls.VersionTLS12, Max: tls.VersionTLS12}, &tls.Config{}, true},
		{"cipher", tlsopt.Options{Suites: []uint16{gcm}}, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"other cipher", tlsopt.Options{Suites: []uint16{gcm}}, &tls.Config{MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, false},
		{"ciphers do not matter to 1.3", tlsopt.Options{Suites: []uint16{gcm}}, &tls.Config{MinVersion: tls.VersionTLS13}, true},
	}
	for _, tt := range tests {
		r := start(t, withTLS(config.TLSImplicit), onListener(func(l *Listener) { l.Handshake = tt.options }))
		cfg := tt.client.Clone()
		cfg.RootCAs, cfg.ServerName = r.roots, "mx.example.org"
		tc := tls.Client(r.dial().conn, cfg)
		err := tc.Handshake()
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if state := tc.ConnectionState(); err == nil && !tt.options.Permits(state.Version, state.CipherSuite) {
			t.Errorf("%s: agreed on %x, %x", tt.name, state.Version, state.CipherSuite)
		}
	}
}
