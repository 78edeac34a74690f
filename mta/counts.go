package mta

import (
	"context"
	"time"

	"tabard/internal/count"
	"tabard/internal/eventlog"
	"tabard/lookup"
	"tabard/queue"
)

// counts is what an MTA counts.
type counts struct {
	count.Set
	open, sessions, failures, attempts, sending, verdicts *count.Vec

	events *eventlog.Counts
}

// Counted returns what MTA.Counts counts.
func Counted() []count.Desc { return newCounts().Descs() }

// Counts returns the numbers of Counted.
func (m *MTA) Counts(context.Context) ([][]float64, error) {
	m.count.events.Take(m.cfg.Events)
	return m.count.Values(), nil
}

func newCounts() *counts {
	c := &counts{}
	c.open = c.New(count.Desc{Name: "tabard_mta_sessions", Help: "Sessions with other servers that are open.", Kind: count.Gauge})
	c.sessions = c.New(count.Desc{Name: "tabard_mta_sessions_total", Help: "Sessions with other servers that were brought up.", Kind: count.Counter})
	c.failures = c.New(count.Desc{
		Name: "tabard_mta_failed_connections_total", Help: "Connections over which no mail could be sent, by what went wrong.", Kind: count.Counter,
		Labels: []string{"fault"}, Series: count.Cross(append(faultWords(), "other")),
	})
	c.attempts = c.New(count.Desc{
		Name: "tabard_mta_attempts_total", Help: "Attempts at one recipient, by outcome; returned: it was not tried.", Kind: count.Counter,
		Labels: []string{"result"}, Series: count.Cross([]string{"delivered", "deferred", "failed", "returned"}),
	})
	c.sending = c.New(count.Desc{
		Name: "tabard_mta_transaction_seconds", Help: "Time that one message took over an open session, from MAIL to the last reply, when its data was sent.", Kind: count.Histogram,
		Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300},
	})
	c.verdicts = c.New(lookup.VerdictDesc("out"))
	c.events = eventlog.NewCounts(&c.Set, "mta")
	return c
}

// faultWords are those of the label fault, in the order of the faults.
func faultWords() []string {
	return []string{"connect", "greeting", "hello", "no-tls", "tls-refused", "injected", "tls-handshake", "certificate", "unchecked", "no-requiretls", "authentication"}
}

// refused counts why no session came up.
func (c *counts) refused(r *refusal) {
	word := "other"
	if i := int(r.fault) - int(faultConnect); i >= 0 && i < len(faultWords()) {
		word = faultWords()[i]
	}
	c.failures.Add(1, word)
}

func (c *counts) sent(began time.Time) { c.sending.Observe(time.Since(began).Seconds()) }

// attempted counts results as they are reported.
func (c *counts) attempted(results []queue.Result) {
	for i := range results {
		word := "returned"
		switch results[i].Outcome {
		case queue.Delivered:
			word = "delivered"
		case queue.Deferred:
			word = "deferred"
		case queue.Failed:
			word = "failed"
		case queue.Returned:
		}
		c.attempts.Add(1, word)
	}
}
