package mta

import (
	"testing"
	"time"
)

// Of several addresses, the failure that got furthest is told, and the soonest
// time counts.
func TestFailureThatTellsMore(t *testing.T) {
	soon, late := time.Unix(1, 0), time.Unix(2, 0)
	none := &failure{enhanced: "4.4.1", text: "connection refused", notBefore: soon}
	tls := &failure{enhanced: "4.7.5", text: "certificate not verified", notBefore: late}
	reply := &failure{code: 554, enhanced: "5.7.1", text: "go away", notBefore: late}
	for _, c := range []struct {
		first, second *failure
		want          string
	}{
		{nil, none, "connection refused"}, {tls, none, "certificate not verified"}, {none, tls, "certificate not verified"},
		{reply, tls, "go away"}, {tls, reply, "go away"}, {none, reply, "go away"},
	} {
		got := c.first.or(c.second)
		if got.text != c.want {
			t.Errorf("%q", got.text)
		}
		if c.first == none || c.second == none {
			if !got.notBefore.Equal(soon) {
				t.Errorf("%s: not before %v", got.text, got.notBefore)
			}
		}
	}
}
