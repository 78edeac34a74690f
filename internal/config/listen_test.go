package config

import (
	"crypto/tls"
	"strings"
	"testing"

	"tabard/internal/tlsopt"
)

func TestListeners(t *testing.T) {
	tests := []struct {
		text string
		want Listener
	}{
		{"lo", Listener{Host: "lo", Port: "25"}},
		{"[2001:DB8::1] inet6", Listener{Host: "2001:db8::1", Port: "25", Family: 6}},
		{"0.0.0.0 inet4 port 2525", Listener{Host: "0.0.0.0", Port: "2525", Family: 4}},
		{"lo port submission", Listener{Host: "lo", Port: "submission"}},
		{"lo port smtp", Listener{Host: "lo", Port: "smtp"}},
		{"lo tls pki MX.example.org pki <t> pki *", Listener{Host: "lo", Port: "25", TLS: TLSStart,
			PKINames: []string{"mx.example.org", "*"}, PKITables: []TableRef{"t"}}},
		{"lo pki * tls-require", Listener{Host: "lo", Port: "25", TLS: TLSRequire, PKINames: []string{"*"}}},
		{"lo smtps pki *", Listener{Host: "lo", Port: "465", TLS: TLSImplicit, PKINames: []string{"*"}}},
		{"lo smtps port smtps pki *", Listener{Host: "lo", Port: "smtps", TLS: TLSImplicit, PKINames: []string{"*"}}},
		{"lo smtps verify ca example.org pki *", Listener{Host: "lo", Port: "465", TLS: TLSImplicit,
			Verify: VerifyRequire, CAName: "example.org", PKINames: []string{"*"}}},
		{"lo tls verify optional ca <t> pki *", Listener{Host: "lo", Port: "25", TLS: TLSStart,
			Verify: VerifyOptional, CATable: "t", PKINames: []string{"*"}}},
		{"lo smtps cert-auth <t> ca <t> pki *", Listener{Host: "lo", Port: "465", TLS: TLSImplicit,
			Verify: VerifyOptional, CertAuth: "t", CATable: "t", PKINames: []string{"*"}}},
		{"lo smtps auth pki *", Listener{Host: "lo", Port: "465", TLS: TLSImplicit, Auth: AuthRequire, PKINames: []string{"*"}}},
		{"lo smtps auth cert-auth <t> ca <t> pki *", Listener{Host: "lo", Port: "465", TLS: TLSImplicit, Auth: AuthRequire,
			Verify: VerifyOptional, CertAuth: "t", CATable: "t", PKINames: []string{"*"}}},
		{"lo smtps auth <t> pki *", Listener{Host: "lo", Port: "465", TLS: TLSImplicit, Auth: AuthRequire, AuthTable: "t", PKINames: []string{"*"}}},
		{"lo smtps auth-optional <map> pki *", Listener{Host: "lo", Port: "465", TLS: TLSImplicit, Auth: AuthOptional, AuthTable: "map", PKINames: []string{"*"}}},
		{"lo senders <t>", Listener{Host: "lo", Port: "25", Senders: "t"}},
		{"lo senders <t> masquerade tag X", Listener{Host: "lo", Port: "25", Senders: "t", Masquerade: true, Tag: "X"}},
		{"lo hostname a.example hostnames <map>", Listener{Host: "lo", Port: "25", Hostname: "a.example", Hostnames: "map"}},
		{"lo filter f", Listener{Host: "lo", Port: "25", Filters: []string{"f"}}},
		{"lo filter { f,\n g }", Listener{Host: "lo", Port: "25", Filters: []string{"f", "g"}}},
		{"lo mask-src received-auth no-dsn proxy-v2", Listener{Host: "lo", Port: "25", MaskSource: true, ReceivedAuth: true, NoDSN: true, ProxyV2: true}},
		{"lo tls pki * protocols tlsv1.3", Listener{Host: "lo", Port: "25", TLS: TLSStart, PKINames: []string{"*"},
			Handshake: tlsopt.Options{Min: tls.VersionTLS13, Max: tls.VersionTLS13}}},
		{`lo smtps pki * ciphers "ECDHE-RSA-AES128-GCM-SHA256" protocols ">=TLSv1.2"`, Listener{Host: "lo", Port: "465", TLS: TLSImplicit,
			PKINames: []string{"*"}, Handshake: tlsopt.Options{Min: tls.VersionTLS12, Max: tls.VersionTLS13,
				Suites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}}},
		{"lo bare-newline normalize", Listener{Host: "lo", Port: "25", NormalizeBareNewline: true}},
		{"lo smtp bare-newline normalize", Listener{Host: "lo", Port: "25", NormalizeBareNewline: true}},
		{"lo bare-newline reject", Listener{Host: "lo", Port: "25"}},
		{"socket tag X mask-src no-dsn filter f", Listener{Socket: true, Tag: "X", MaskSource: true, NoDSN: true, Filters: []string{"f"}}},
	}
	for _, tt := range tests {
		same(t, tt.text, parse(t, "listen on "+tt.text).Listeners, []Listener{tt.want})
	}
}

// Global defaults reach what names none of its own, wherever they stand.
func TestDefaults(t *testing.T) {
	c := parse(t, `listen on a tls
pki <t>
ca <t>
listen on b smtps verify pki * ca example.org bare-newline reject
listen on c tls-require verify
listen on d
action "out" relay
action "own" relay ca example.org
smtp bare-newline normalize`)
	t1 := []TableRef{"t"}
	same(t, "listeners", c.Listeners, []Listener{
		{Host: "a", Port: "25", TLS: TLSStart, PKITables: t1, NormalizeBareNewline: true},
		{Host: "b", Port: "465", TLS: TLSImplicit, Verify: VerifyRequire, PKINames: []string{"*"}, CAName: "example.org"},
		{Host: "c", Port: "25", TLS: TLSRequire, Verify: VerifyRequire, PKITables: t1, CATable: "t", NormalizeBareNewline: true},
		{Host: "d", Port: "25", NormalizeBareNewline: true},
	})
	same(t, "actions", c.Actions[1:], []Action{
		{Name: "out", Method: MethodRelay, CATable: "t"},
		{Name: "own", Method: MethodRelay, CAName: "example.org"},
	})
}

// The system's authorities vouch for the whole world: they are not who says whose a
// client certificate is.
func TestCertAuthNeedsAuthorities(t *testing.T) {
	const text = "table t sqlite:/t\nlisten on lo smtps cert-auth <t> pki <t>\nmatch for any reject\n"
	if _, err := Parse("x", []byte(text), Options{}); err == nil || !strings.Contains(err.Error(), "x:2:1: cert-auth needs the authorities") {
		t.Errorf("%v", err)
	}
	if _, err := Parse("x", []byte("table u sqlite:/u\nca <u>\n"+text), Options{}); err != nil {
		t.Errorf("with a global ca: %v", err)
	}
}
