package config

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRelayURL(t *testing.T) {
	tests := []struct {
		in   string
		want RelayURL
	}{
		{"mx.example.org", RelayURL{SchemeSMTPTLS, "", "mx.example.org", "25", false}},
		{"MX.Example.ORG.:026", RelayURL{SchemeSMTPTLS, "", "mx.example.org", "26", false}},
		{"smtp://a.example", RelayURL{SchemeSMTP, "", "a.example", "25", false}},
		{"SMTP+TLS://a.example", RelayURL{SchemeSMTPTLS, "", "a.example", "25", false}},
		{"tls://l@a.example:587", RelayURL{SchemeTLS, "l", "a.example", "587", false}},
		{"tls://me@home.example@a.example", RelayURL{SchemeTLS, "me@home.example", "a.example", "25", false}},
		{"smtps://l@[2001:DB8::1]", RelayURL{SchemeSMTPS, "l", "2001:db8::1", "465", false}},
		{"ssl://[IPv6:::1]:2525", RelayURL{SchemeSSL, "", "::1", "2525", false}},
		{"ssl://[127.0.0.1]", RelayURL{SchemeSSL, "", "127.0.0.1", "25", false}},
		{"smtp://[fe80::1%eth0]:25", RelayURL{SchemeSMTP, "", "fe80::1%eth0", "25", false}},
		{"smtp://bücher.example", RelayURL{SchemeSMTP, "", "xn--bcher-kva.example", "25", false}},
		{"backup://mx2.example.org", RelayURL{SchemeBackup, "", "mx2.example.org", "25", false}},
		{"lmtp://127.0.0.1:24", RelayURL{SchemeLMTP, "", "127.0.0.1", "24", false}},
		{"lmtp:///run/lmtp@2.sock", RelayURL{SchemeLMTP, "", "/run/lmtp@2.sock", "0", false}},
		{"lmtp://l@/run/lmtp", RelayURL{SchemeLMTP, "l", "/run/lmtp", "0", false}},
		{"SMTP+TLS+MX://Provider.example", RelayURL{SchemeSMTPTLS, "", "provider.example", "25", true}},
		{"smtp+mx://provider.example:2525", RelayURL{SchemeSMTP, "", "provider.example", "2525", true}},
		{"tls+mx://", RelayURL{SchemeTLS, "", "", "25", true}},
		{"smtps+mx://", RelayURL{SchemeSMTPS, "", "", "465", true}},
	}
	for _, tt := range tests {
		got, err := ParseRelayURL(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseRelayURL(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

func TestParseRelayURLErrors(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "no host name"},
		{"smtp://", "no host name"},
		{"smtp+notls://a", `plain text, which is "smtp" here`},
		{"http://a", `unknown scheme "http"`},
		{"smtp+auth://a", "unknown scheme"},
		{"lmtp://host", "needs a port"},
		{"lmtp:///", "bad path"},
		{"smtp://a:0", "bad port"},
		{"smtp://a:", "bad port"},
		{"smtp://a:65536", "bad port"},
		{"smtp://a:+25", "bad port"},
		{"smtp://::1", "[brackets]"},
		{"smtp://[::1", "missing ]"},
		{"smtp://[::1]x", "after ]"},
		{"smtp://[mx.example]", "not an IP address"},
		{"smtp://@a", "empty label"},
		{"smtp://a b@c", "bad label"},
		{"smtp://a/", "no path"},
		{"smtp://a\r\nb", "host name"},
		{"backup://a:25", "nothing but the name"},
		{"backup://l@a", "nothing but the name"},
		{"backup+mx://a", "always or never"},
		{"lmtp+mx://a:24", "always or never"},
		{"tls+mx://l@a", "a login needs a host that is named"},
		{"tls+mx://[::1]", "has no MX"},
		{"tls+mx://:25", "no host name"},
		{"+mx://a", "unknown scheme"},
		{"tls+mx+mx://a", "unknown scheme"},
		{strings.Repeat("a", maxRelayURL+1), "longer than"},
	}
	for _, tt := range tests {
		_, err := ParseRelayURL(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, ErrRelayURL) {
			t.Errorf("ParseRelayURL(%q): %v; want %q", tt.in, err, tt.want)
		}
	}
}

func TestParseRelayURLOpenSMTPD(t *testing.T) {
	tests := []struct {
		in   string
		want Scheme // empty: an error
	}{
		{"a", SchemeSMTPTLS}, {"smtp://a", SchemeSMTPTLS}, {"smtp+tls://a", SchemeTLS},
		{"smtp+notls://a", SchemeSMTP}, {"smtps://a", SchemeSMTPS}, {"lmtp://a:24", SchemeLMTP},
		{"tls://a", ""}, {"ssl://a", ""}, {"backup://a", ""},
	}
	for _, tt := range tests {
		u, err := DialectOpenSMTPD.ParseRelayURL(tt.in)
		if u.Scheme != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q = %q, %v; want %q", tt.in, u.Scheme, err, tt.want)
		}
	}
}

func FuzzParseRelayURL(f *testing.F) {
	for _, s := range []string{"tls://l@a.example:587", "lmtp://l@/run/x", "smtps://[::1]", "backup://a", "a@b@c:1", "smtp://[fe80::1%e]", "tls+mx://", "ssl+mx://a:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseRelayURL(s)
		if err != nil {
			return
		}
		if u.Host == "" && !u.MX || u.Port == "" || hasControl(u.String()) {
			t.Fatalf("%q gives %+v", s, u)
		}
		again, err := ParseRelayURL(u.String())
		if err != nil || again != u {
			t.Fatalf("%q gives %+v, whose text %q gives %+v, %v", s, u, u.String(), again, err)
		}
	})
}
