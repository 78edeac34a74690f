package smtpd

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"tabard/internal/count"
	"tabard/internal/eventlog"
	"tabard/lookup"
)

// counts is what a server counts.
type counts struct {
	count.Set
	open, sessions, turnedAway, messages, envelopes, bytes, refusals *count.Vec
	logins, handshakes, shaking, verdicts, accepting                 *count.Vec

	events *eventlog.Counts
}

// Counted returns what Server.Counts counts.
func Counted() []count.Desc { return newCounts().Descs() }

// Counts returns the numbers of Counted.
func (s *Server) Counts(context.Context) ([][]float64, error) {
	s.count.events.Take(s.events)
	return s.count.Values(), nil
}

func newCounts() *counts {
	c := &counts{}
	c.open = c.New(count.Desc{Name: "tabard_smtpd_sessions", Help: "SMTP sessions that are open.", Kind: count.Gauge})
	c.sessions = c.New(count.Desc{Name: "tabard_smtpd_sessions_total", Help: "SMTP sessions that were let in.", Kind: count.Counter})
	c.turnedAway = c.New(count.Desc{
		Name: "tabard_smtpd_refused_connections_total", Help: "Connections that were turned away, by the limit that was reached.", Kind: count.Counter,
		Labels: []string{"reason"}, Series: count.Cross(slices.Sorted(maps.Values(refusalWords()))),
	})
	c.messages = c.New(count.Desc{Name: "tabard_smtpd_messages_total", Help: "Messages that got a 250 after their data.", Kind: count.Counter})
	c.envelopes = c.New(count.Desc{Name: "tabard_smtpd_envelopes_total", Help: "Recipients, after expansion, of messages that got a 250.", Kind: count.Counter})
	c.bytes = c.New(count.Desc{Name: "tabard_smtpd_message_bytes_total", Help: "Bytes of messages that got a 250.", Kind: count.Counter})
	c.refusals = c.New(count.Desc{
		Name: "tabard_smtpd_refused_commands_total", Help: "Replies that were a refusal: 4xx for the moment, 5xx for good.", Kind: count.Counter,
		Labels: []string{"class"}, Series: count.Cross([]string{"4xx", "5xx"}),
	})
	c.logins = c.New(count.Desc{
		Name: "tabard_smtpd_authentications_total", Help: "Logins and attempts at them, by outcome in the words of the log. A certificate is one login by itself, and another one by EXTERNAL.", Kind: count.Counter,
		Labels: []string{"method", "result"}, Series: count.Cross([]string{methodPassword, methodCertificate, methodExternal}, []string{"ok", "permfail", "tempfail", "revoked"}),
	})
	c.newTLS()
	c.accepting = c.New(count.Desc{
		Name: "tabard_smtpd_accept_seconds", Help: "Time from the end of a message's data to its 250, when it is safe on disk.", Kind: count.Histogram,
		Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10},
	})
	c.events = eventlog.NewCounts(&c.Set, "smtpd")
	return c
}

func (c *counts) newTLS() {
	c.handshakes = c.New(count.Desc{
		Name: "tabard_smtpd_tls_handshakes_total", Help: "TLS handshakes with clients, by outcome.", Kind: count.Counter,
		Labels: []string{"result"}, Series: count.Cross([]string{"ok", "timeout", "closed", "no-certificate", "failed"}),
	})
	c.shaking = c.New(count.Desc{
		Name: "tabard_smtpd_tls_handshake_seconds", Help: "Time that TLS handshakes with clients took that came to a good end.", Kind: count.Histogram,
		Buckets: []float64{0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10},
	})
	c.verdicts = c.New(lookup.VerdictDesc("in"))
}

// refusalWords are those of the label reason.
func refusalWords() map[string]string {
	return map[string]string{refusedFull: "limit", refusedAddress: "address-limit", refusedStopping: "stopping"}
}

// How clients log in.
const (
	methodPassword    = "password"
	methodCertificate = "certificate" // by presenting it, without a word of SASL
	methodExternal    = "external"
)

// judged counts a verdict on a client's certificate.
func (c *counts) judged(v lookup.Verdict) { c.verdicts.Add(1, lookup.VerdictSeries("in", v)...) }

// shook counts a handshake that began at a time.
func (c *counts) shook(began time.Time, err error) {
	if err == nil {
		c.shaking.Observe(time.Since(began).Seconds())
	}
	c.handshakes.Add(1, handshakeResult(err))
}

func handshakeResult(err error) string {
	var missing *noCertificate
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &missing):
		return "no-certificate"
	case timedOut(err):
		return "timeout"
	case brokeOff(err):
		return "closed"
	}
	return "failed"
}

// accepted counts a message whose data ended at a time.
func (c *counts) accepted(ended time.Time, envelopes int, size int64) {
	c.accepting.Observe(time.Since(ended).Seconds())
	c.messages.Add(1)
	c.envelopes.Add(float64(envelopes))
	c.bytes.Add(float64(size))
}
