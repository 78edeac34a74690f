package config

import (
	"crypto/tls"
	"testing"
	"time"

	"tabard/internal/tlsopt"
)

func TestActions(t *testing.T) {
	dyn := TableRef("<dynamic:0>")
	tests := []struct {
		text string
		want Action
	}{
		{"mbox", Action{Method: MethodMbox}},
		{"mbox alias <map> userbase <getpwnam>", Action{Method: MethodMbox, Alias: "map", UserBase: "getpwnam"}},
		{"maildir", Action{Method: MethodMaildir}},
		{"maildir junk", Action{Method: MethodMaildir, Junk: true}},
		{`maildir "/m/%{user.username}" junk ttl 2d user vmail`, Action{Method: MethodMaildir, Path: "/m/%{user.username}", Junk: true, TTL: 2 * day, User: "vmail"}},
		{"maildir /m virtual <t>", Action{Method: MethodMaildir, Path: "/m", Virtual: "t"}},
		{"lmtp 127.0.0.1:24 rcpt-to", Action{Method: MethodLMTP, LMTP: "127.0.0.1:24", RcptTo: true}},
		{"lmtp lmtp.example", Action{Method: MethodLMTP, LMTP: "lmtp.example:25"}},
		{"lmtp [::1]:24 user u", Action{Method: MethodLMTP, LMTP: "[::1]:24", User: "u"}},
		{"lmtp /run/lmtp", Action{Method: MethodLMTP, LMTP: "/run/lmtp"}},
		{`lmtp "%{dest.domain}:24"`, Action{Method: MethodLMTP, LMTP: "%{dest.domain}:24"}},
		{`mda "cat > x" wrapper w alias { root = a }`, Action{Method: MethodMDA, Command: "cat > x", Wrapper: "w", Alias: dyn}},
		{"forward-only alias <t>", Action{Method: MethodForwardOnly, Alias: "t"}},
		{"expand-only virtual <t>", Action{Method: MethodExpandOnly, Virtual: "t"}},
		{"relay", Action{Method: MethodRelay}},
		{"relay ttl 2d helo mx.example", Action{Method: MethodRelay, TTL: 2 * day, Helo: "mx.example"}},
		{"relay host tls://l@h.example:587 auth <t>", Action{Method: MethodRelay, Host: dyn, Auth: "t"}},
		{"relay auth <t> host <t> insecure-auth", Action{Method: MethodRelay, Host: "t", Auth: "t", InsecureAuth: true}},
		{"relay host { smtp://a, smtps://b }", Action{Method: MethodRelay, Host: dyn}},
		{"relay domain <t>", Action{Method: MethodRelay, Domain: "t"}},
		{"relay sender <t>", Action{Method: MethodRelay, Sender: "t"}},
		{"relay sender <t> domain <map>", Action{Method: MethodRelay, Sender: "t", Domain: "map"}},
		{"relay backup", Action{Method: MethodRelay, Backup: true}},
		{"relay backup mx mx.example tls", Action{Method: MethodRelay, Backup: true, BackupMX: "mx.example", TLS: true}},
		{"relay tls no-verify", Action{Method: MethodRelay, TLS: true, NoVerify: true}},
		{"relay tls-policy <t>", Action{Method: MethodRelay, TLSPolicy: "t"}},
		{"relay helo-src <map> src <t>", Action{Method: MethodRelay, HeloSrc: "map", Src: "t"}},
		{"relay src { 192.0.2.1, [2001:db8::1] }", Action{Method: MethodRelay, Src: dyn}},
		{"relay helo [192.0.2.1]", Action{Method: MethodRelay, Helo: "[192.0.2.1]"}},
		{"relay pki mx.example.org ca <t>", Action{Method: MethodRelay, PKIName: "mx.example.org", CATable: "t"}},
		{"relay pki <t> ca example.org", Action{Method: MethodRelay, PKITable: "t", CAName: "example.org"}},
		{"relay ciphers ECDHE-RSA-AES256-GCM-SHA384 protocols TLSv1.2", Action{Method: MethodRelay, Handshake: tlsopt.Options{
			Min: tls.VersionTLS12, Max: tls.VersionTLS12, Suites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}}},
		{"relay mail-from b@x.example srs filter { f g }", Action{Method: MethodRelay, MailFrom: "b@x.example", SRS: true, Filters: []string{"f", "g"}}},
	}
	for _, tt := range tests {
		tt.want.Name = "x"
		same(t, tt.text, parse(t, `action "x" `+tt.text).Actions[1], tt.want)
	}
}

// The same URLs are right or wrong by dialect.
func TestRelayDialect(t *testing.T) {
	text := "action \"a\" relay host smtp+notls://h\nmatch for any reject\n"
	if c, err := Parse("x", []byte(text), Options{Dialect: DialectOpenSMTPD}); err != nil || c.Dialect != DialectOpenSMTPD {
		t.Errorf("dialect by option: %v", err)
	}
	if _, err := Parse("x", []byte("\n# first\ndialect opensmtpd\n"+text), Options{}); err != nil {
		t.Errorf("dialect by text: %v", err)
	}
	if _, err := Parse("x", []byte("dialect tabard\n"+text), Options{Dialect: DialectOpenSMTPD}); err == nil {
		t.Error("the text's own dialect must win")
	}
}

func TestDelays(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration // -1: an error
	}{
		{"1s", time.Second}, {"30m", 30 * time.Minute}, {"4h", 4 * time.Hour}, {"2d", 2 * day}, {"0s", 0},
		{"24855d", 24855 * day}, {"24856d", -1}, {"99999999999999999999s", -1}, {"", -1}, {"5", -1}, {"d", -1},
		{"-1s", -1}, {"+1s", -1}, {"1 s", -1}, {"1h30m", -1}, {"1.5h", -1}, {"1S", -1},
	}
	for _, tt := range tests {
		got, ok := ParseDelay(tt.in)
		if !ok {
			got = -1
		}
		if got != tt.want {
			t.Errorf("ParseDelay(%q) = %v, want %v", tt.in, got, tt.want)
		}
		if again, _ := ParseDelay(formatDelay(got)); ok && again != got {
			t.Errorf("formatDelay(%v) = %q", got, formatDelay(got))
		}
	}
}

func TestSizes(t *testing.T) {
	tests := []struct {
		in   string
		want int64 // 0: an error
	}{
		{"1", 1}, {"512B", 512}, {"10k", 10 << 10}, {"35M", 35 << 20}, {"2G", 2 << 30}, {"1T", 1 << 40},
		{"0", 0}, {"", 0}, {"M", 0}, {"-1", 0}, {"1.5M", 0}, {"9223372036854775808", 0}, {"4611686018427387904K", 0}, {"1X", 0},
	}
	for _, tt := range tests {
		if got, _ := parseSize(tt.in); got != tt.want {
			t.Errorf("parseSize(%q) = %d, want %d", tt.in, got, tt.want)
		}
	}
}
