package lookup

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"tabard/table"
)

const expiryConf = `
table certs sqlite:/mem/certs
listen on 127.0.0.1 port 25 tls pki <certs>
action "out" relay
match from any for any action "out"
`

// warnings counts the warnings in the log since the last call, by days.
func warnings(f *fixture) string {
	var days []string
	for line := range strings.Lines(f.log.String()) {
		if _, rest, ok := strings.Cut(line, `msg="certificate ends soon"`); ok {
			_, rest, _ = strings.Cut(rest, "name=")
			name, rest, _ := strings.Cut(rest, " ")
			_, at, _ := strings.Cut(rest, "warned_at_days=")
			days = append(days, name+" "+strings.TrimSpace(at))
		}
	}
	f.log.Reset()
	return strings.Join(days, ", ")
}

// A certificate that is served is warned of at 30, 14, 7 and 1 days, once each, and
// no more when its successor is there.
func TestExpiryWarnings(t *testing.T) {
	f, ca := newFixture(t), newAuthority(t, "CA", nil)
	now := time.Now()
	end := now.Add(100 * day)
	f.clock = func() time.Time { return now }
	s := f.service(expiryConf)
	until := func(end time.Time) func(c *x509.Certificate) { return func(c *x509.Certificate) { c.NotAfter = end } }
	chain, key := ca.server("ecdsa", until(end), "mx.example")
	certs := f.table("certs")
	certs.set(table.Cert, "mx.example", chain, key)
	for _, c := range []struct {
		left time.Duration
		want string
	}{
		{50 * day, ""}, {30*day + time.Hour, ""}, {30 * day, "mx.example 30"}, {20 * day, ""}, {13 * day, "mx.example 14"},
		{6 * day, "mx.example 7"}, {5 * day, ""}, {time.Hour, "mx.example 1"}, {time.Minute, ""},
	} {
		now = end.Add(-c.left)
		for range 3 {
			served(t, s, CertificateRequest{ServerName: "mx.example"})
		}
		if got := warnings(f); got != c.want {
			t.Errorf("%v before the end: warned %q; want %q", c.left, got, c.want)
		}
	}
	// One who comes late gets the nearest warning only.
	late, lateKey := ca.server("ecdsa", until(now.Add(3*day)), "late.example")
	certs.set(table.Cert, "late.example", late, lateKey)
	served(t, s, CertificateRequest{ServerName: "late.example"})
	if got := warnings(f); got != "late.example 7" {
		t.Errorf("late: warned %q", got)
	}
	// A successor of the same kind of key silences, another kind does not.
	old, oldKey := ca.server("ecdsa", until(now.Add(3*day)), "two.example")
	rsa, rsaKey := ca.server("rsa", until(now.Add(300*day)), "two.example")
	certs.set(table.Cert, "two.example", old, oldKey, rsa, rsaKey)
	served(t, s, CertificateRequest{ServerName: "two.example"})
	if got := warnings(f); got != "two.example 7" {
		t.Errorf("beside RSA: warned %q", got)
	}
	next, nextKey := ca.server("ecdsa", until(now.Add(300*day)), "next.example")
	old, oldKey = ca.server("ecdsa", until(now.Add(3*day)), "next.example")
	certs.set(table.Cert, "next.example", old, oldKey, next, nextKey)
	served(t, s, CertificateRequest{ServerName: "next.example"})
	if got := warnings(f); got != "" {
		t.Errorf("with a successor: warned %q", got)
	}
}

// What nobody asks for is looked at all the same.
func TestExpirySweep(t *testing.T) {
	f, ca := newFixture(t), newAuthority(t, "CA", nil)
	now := time.Now()
	f.clock = func() time.Time { return now }
	s := f.service(expiryConf)
	until := func(c *x509.Certificate) { c.NotAfter = now.Add(50 * day) }
	certs := f.table("certs")
	for _, name := range []string{"mx.example.org", "asked.example", "idle.example"} {
		chain, key := ca.server("ecdsa", until, name)
		certs.set(table.Cert, name, chain, key)
	}
	served(t, s, CertificateRequest{ServerName: "asked.example"})
	now = now.Add(30 * day)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.sweep(t.Context())
	if got := warnings(f); got != "mx.example.org 30, asked.example 30" {
		t.Errorf("swept: warned %q", got)
	}
	s.WatchExpiry(ctx) // ends at once
	if got := warnings(f); got != "" {
		t.Errorf("swept again: warned %q", fmt.Sprint(got))
	}
}
