package smtpd

import (
	"maps"
	"testing"
	"time"

	"tabard/internal/config"
	"tabard/internal/count"
	"tabard/lookup"
)

// counts checks what a server has counted under a name.
func (r *rig) counts(name string, want map[string]float64) {
	r.t.Helper()
	if got := countOf(r.srv, name); !maps.Equal(got, want) {
		r.t.Errorf("%s: %v, want %v", name, got, want)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	r := start(t, withTLS(config.TLSStart), withAuth(config.AuthOptional), onConfig(func(c *Config) { c.MaxConnections = 1 }),
		onLookup(func(f *fakeLookup) {
			f.auth = func(r lookup.AuthRequest) (lookup.AuthReply, error) {
				return lookup.AuthReply{OK: r.Password == "right"}, nil
			}
		}))
	c := r.secure()
	c.do("AUTH PLAIN "+b64("\x00joe\x00wrong"), "535")
	c.do("AUTH PLAIN "+b64("\x00joe\x00right"), "235")
	c.do("MAIL FROM:<a@client.example>", "250")
	c.do("RCPT TO:<b@example.org>", "250")
	c.do("RCPT TO:<c@example.org>", "250")
	c.do("DATA", "354")
	c.do("x\r\n.", "250")
	r.dial().expect("421 4.3.2 Too many connections")
	size := float64(r.only().Message.Size)
	for name, want := range map[string]map[string]float64{
		"tabard_smtpd_sessions":                  {"0": 1},
		"tabard_smtpd_sessions_total":            {"0": 1},
		"tabard_smtpd_refused_connections_total": {"limit": 1},
		"tabard_smtpd_messages_total":            {"0": 1},
		"tabard_smtpd_envelopes_total":           {"0": 2},
		"tabard_smtpd_message_bytes_total":       {"0": size},
		"tabard_smtpd_refused_commands_total":    {"5xx": 1},
		"tabard_smtpd_authentications_total":     {"password permfail": 1, "password ok": 1},
		"tabard_smtpd_tls_handshakes_total":      {"ok": 1},
		"tabard_tls_verdicts_total":              {"in unchecked ": 1},
	} {
		r.counts(name, want)
	}
	values, err := r.srv.Counts(t.Context())
	if err != nil || count.Check(Counted(), values) != nil {
		t.Errorf("%v, %v", err, count.Check(Counted(), values))
	}
	for _, name := range []string{"tabard_smtpd_accept_seconds", "tabard_smtpd_tls_handshake_seconds"} {
		observed := 0.0
		for _, n := range countOf(r.srv, name) {
			observed += n // the sum of the times is below one
		}
		if observed < 1 || observed >= 20 {
			t.Errorf("%s: %v", name, countOf(r.srv, name))
		}
	}
	c.do("QUIT", "221")
	c.gone()
	r.await("smtp disconnected")
	r.counts("tabard_smtpd_sessions", nil)
}

// What ends a handshake is counted in words of ours, whatever the client did.
func TestHandshakesCounted(t *testing.T) {
	t.Parallel()
	r := start(t, withTLS(config.TLSImplicit), onConfig(func(c *Config) { c.Timeouts.Handshake = 50 * time.Millisecond }))
	stalled, garbage, gone := r.dial(), r.dial(), r.dial()
	stalled.write("\x16\x03\x01\x02\x00\x01\x00")
	garbage.write("EHLO x\r\n")
	if err := gone.conn.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"timeout": 1, "failed": 1, "closed": 1}
	deadline := time.NewTimer(testPatience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !maps.Equal(countOf(r.srv, "tabard_smtpd_tls_handshakes_total"), want) {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%v, want %v", countOf(r.srv, "tabard_smtpd_tls_handshakes_total"), want)
		}
	}
}
