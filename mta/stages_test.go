package mta

import (
	"testing"

	"tabard/lookup"
	"tabard/queue"
)

// A result says how long each stage took that its job passed, and of no other.
func TestStages(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	w, p := newWorld(t), newPeer(t)
	w.dns.Zone(t, relayName+". A 192.0.2.25")
	w.lookup.verifier = verifier(t, ca)
	p.tls = serverTLS(ca.good(t, relayName))
	w.at("192.0.2.25:25", p.start()).relay(lookup.RelayURL{Scheme: lookup.SchemeTLS, Host: relayName, Port: "25"}).start()
	first, second := w.one("x@example.org"), w.one("y@example.org")
	for s, want := range map[queue.Step][2]bool{
		queue.StepRoute: {true, true}, queue.StepTurn: {true, true}, queue.StepTransfer: {true, true},
		queue.StepConnect: {true, false}, queue.StepTLS: {true, false},
		queue.StepAccept: {}, queue.StepScheduleWait: {}, queue.StepAck: {},
	} {
		if passed := [2]bool{first.Spent[s] > 0, second.Spent[s] > 0}; passed != want {
			t.Errorf("%s: passed by the first message and by the second: %v, want %v", s, passed, want)
		}
	}
}
