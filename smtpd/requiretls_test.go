package smtpd

import (
	"crypto/tls"
	"strings"
	"testing"

	"tabard/internal/config"
)

// REQUIRETLS is offered and taken under TLS only (RFC 8689 section 2), and goes
// with the message.
func TestRequireTLS(t *testing.T) {
	r := start(t, withTLS(config.TLSStart))
	c := r.hello()
	if got := c.do("EHLO x", "250"); strings.Contains(got, "REQUIRETLS") {
		t.Errorf("offered in clear: %q", got)
	}
	c.do("MAIL FROM:<a@b.example> REQUIRETLS", "530 5.7.10")
	c.do("STARTTLS", "220")
	c.startTLS(&tls.Config{RootCAs: r.roots, ServerName: "mx.example.org"})
	if got := c.do("EHLO x", "250"); strings.Count(got, "-REQUIRETLS\r\n") != 1 {
		t.Errorf("not offered under TLS: %q", got)
	}
	for i, param := range []string{" REQUIRETLS", "", " requiretls SIZE=100"} {
		c.do("MAIL FROM:<a@b.example>"+param, "250")
		c.do("RCPT TO:<b@c.example>", "250")
		c.do("DATA", "354")
		c.do("A: b\r\n\r\nx\r\n.", "250")
		if m := r.queue.all()[i].Message; m.RequireTLS != (param != "") || m.TLSOptional {
			t.Errorf("%q: %+v", param, m)
		}
	}
}

func TestTLSRequiredField(t *testing.T) {
	tests := map[string]bool{
		"A: b":                                 false,
		"TLS-Required: No":                     true,
		"A: b\r\ntls-required:no\r\nC: d":      true,
		"TLS-Required:\r\n No":                 true,
		"TLS-Required : No ":                   true,
		"TLS-Required: Yes":                    false,
		"TLS-Required: No, really":             false,
		"TLS-Required: No\r\n way":             false,
		"TLS-Required:":                        false,
		"TLS-Required: No\r\nTLS-Required: No": false,
		"X-TLS-Required: No":                   false,
		"TLS-Required: " + strings.Repeat("x", 900) + "\r\n No": false,
		"A: b\r\n\r\nTLS-Required: No":                          false,
	}
	r := start(t)
	c := r.hello()
	n := 0
	for text, want := range tests {
		c.envelope()
		c.do("DATA", "354")
		c.do(text+"\r\n\r\nx\r\n.", "250")
		m := r.queue.all()[n]
		if n++; m.Message.TLSOptional != want || m.Message.RequireTLS {
			t.Errorf("%.60q: %t, want %t", text, m.Message.TLSOptional, want)
		}
		if !strings.Contains(string(m.body), text) {
			t.Errorf("%.60q was changed", text)
		}
	}
}
