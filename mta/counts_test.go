package mta

import (
	"maps"
	"strings"
	"testing"

	"tabard/internal/count"
	"tabard/internal/count/counttest"
	"tabard/queue"
)

// countOf returns what an MTA has counted under a name, by the values of the
// labels, without what is zero.
func countOf(m *MTA, name string) map[string]float64 {
	return counttest.Of(name, Counted(), m.count.Values())
}

func TestCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refusing, taking := newPeer(t), newPeer(t)
	w.at("192.0.2.1:25", refusing.on("", say("421 4.7.0 too busy")).start())
	w.at("192.0.2.2:25", taking.on("RCPT", func(_ *peerConn, line string) (string, bool) {
		if strings.Contains(line, "bad") {
			return "550 5.1.1 unknown", true
		}
		return "250 2.1.5 ok", true
	}).start())
	w.start()
	res := w.deliver(job(1, "good@example.org", "bad@example.org", "fine@example.org"))
	wantResult(t, res[0], queue.Delivered, 250)
	wantResult(t, w.one("nobody@other.example"), queue.Deferred, 0)
	for name, want := range map[string]map[string]float64{
		"tabard_mta_sessions":                 {"0": 1},
		"tabard_mta_sessions_total":           {"0": 1},
		"tabard_mta_failed_connections_total": {"greeting": 1, "connect": 1},
		"tabard_mta_attempts_total":           {"delivered": 2, "failed": 1, "deferred": 1},
	} {
		if got := countOf(w.mta, name); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	values, err := w.mta.Counts(t.Context())
	if err != nil || count.Check(Counted(), values) != nil {
		t.Errorf("%v, %v", err, count.Check(Counted(), values))
	}
	observed := 0.0
	for _, n := range countOf(w.mta, "tabard_mta_transaction_seconds") {
		observed += n
	}
	if observed < 1 || observed >= 2 {
		t.Errorf("%v", countOf(w.mta, "tabard_mta_transaction_seconds"))
	}
}

// Every fault has a word of its own.
func TestFaultWords(t *testing.T) {
	if n := int(faultAuth); len(faultWords()) != n {
		t.Errorf("%d words for %d faults", len(faultWords()), n)
	}
	c := newCounts()
	c.refused(&refusal{fault: faultAuth})
	c.refused(&refusal{})
	for i, d := range c.Descs() {
		if d.Name != "tabard_mta_failed_connections_total" {
			continue
		}
		if v := c.Values()[i]; v[int(faultAuth)-1] != 1 || v[len(v)-1] != 1 {
			t.Errorf("%v", v)
		}
	}
}
