package config

import (
	"slices"
	"testing"
)

// whats returns the phrases of every gap that there is.
func whats() []string {
	var all []string
	all = append(all, phrases(tableGaps())...)
	all = append(all, phrases(pkiGaps())...)
	all = append(all, phrases(listenerGaps())...)
	all = append(all, phrases(actionGaps())...)
	all = append(all, phrases(filterGaps())...)
	all = append(all, phrases(procGaps())...)
	all = append(all, phrases(wrapperGaps())...)
	return append(all, phrases(globalGaps())...)
}

func phrases[T any](gaps []gap[T]) []string {
	var all []string
	for _, g := range gaps {
		all = append(all, g.what)
	}
	return all
}

func TestUnsupported(t *testing.T) {
	const noKeyFile = "queue encryption with a key that is not in a file (tabard queue encrypt new-key makes one)"
	const certs = "table t sqlite:/t\npki * cert /c key /k\n"
	tests := []struct {
		text, want string
		line       int
	}{
		{"table x db:/x", "db tables", 1},
		{"pki * cert /c key /k dhe auto", "pki dhe auto and legacy (only ECDHE is offered)", 1},
		{certs + "listen on lo smtps pki * auth", "auth without a table (system accounts)", 3},
		{certs + "listen on lo senders <t> masquerade", "senders masquerade", 3},
		{"listen on lo proxy-v2", "proxy-v2", 1},
		{`action a forward-only`, "forward-only (.forward files)", 1},
		{"mda wrapper w x", "mda wrappers", 1},
		{"proc p x", "filters", 1},
		{"filter f proc-exec x", "filters", 1},
		{"admd x", "admd", 1},
		{"queue ttl 1d\nqueue postgres://h/d", "queue postgres", 2},
		{"queue ttl 1d\nqueue encryption", noKeyFile, 2},
		{"queue encryption stdin", noKeyFile, 1},
		{"queue encryption -", noKeyFile, 1},
		{`queue encryption "0123456789abcdef0123456789abcdef"`, noKeyFile, 1},
		{"mda limit max-session 1", "mda limit", 1},
		{"scheduler limit max-inflight 1", "scheduler limit", 1},
	}
	covered := make(map[string]bool)
	for _, tt := range tests {
		c, err := Parse("x", []byte(tt.text+"\nmatch for any reject"), Options{})
		if err != nil {
			t.Fatalf("%s: %v", tt.text, err)
		}
		covered[tt.want] = true
		want := []Unsupported{{Pos{"x", tt.line, 1}, tt.want}}
		if !slices.Equal(c.Unsupported, want) {
			t.Errorf("%s\n got %v\nwant %v", tt.text, c.Unsupported, want)
		}
	}
	for _, what := range whats() {
		if !covered[what] {
			t.Errorf("nothing tests %q", what)
		}
	}
}

// What this version does must not be refused.
func TestSupported(t *testing.T) {
	c, err := Parse("x", []byte(`
table t sqlite:/t
table l ldap://h/dc=x
table f file:/f
table aliases { root = admin }
pki mx.example cert /c key /k dhe none
pki <t>
ca example cert /ca
ca <t>
hostname mx.example
control /c
resolver ::1
sandbox best-effort
process smtpd user u
smtp limit max-mails 1 max-rcpt 1 max-errors 1 max-connections 1
smtp max-message-size 1M
smtp sub-addr-delim -
smtp bare-newline normalize
smtp ciphers ECDHE-RSA-AES128-GCM-SHA256
queue sqlite:/q
queue ttl 1d
queue retry 1m, 1h
bounce warn-interval 1h
listen on socket mask-src
listen on a tls tag x hostname y hostnames <t> mask-src received-auth no-dsn bare-newline reject
listen on b tls-require auth <t> senders <t> pki mx.example
listen on c smtps auth-optional <t> ca example protocols "TLSv1.2:TLSv1.3" ciphers ECDHE-RSA-AES128-GCM-SHA256
action a maildir "/m" alias <aliases> userbase <t> user u
action b lmtp /s virtual <t> ttl 1d
action c mbox
action d mda "cat"
action e expand-only alias <f>
action f relay host { smtps://l@h, lmtp://h:24 } auth <t> tls no-verify helo h src 192.0.2.1 ca <t> mail-from a@b.example ttl 1d
action g relay domain <t> helo-src <t> tls-policy <t> auth <t> insecure-auth protocols TLSv1.3
action h relay sender <t>
match from src regex x for rcpt-to <t> tag x !helo regex y tls auth mail-from <t> rcpt-to <t> action a
match from any reject
`[1:]), Options{})
	if err != nil || len(c.Unsupported) > 0 {
		t.Errorf("%v, %v", err, c)
	}
}
