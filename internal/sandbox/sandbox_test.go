package sandbox

import (
	"testing"
)

// apply does both halves.
func apply(mode Mode, p Profile) []Layer { return append(Begin(mode, p), Finish(mode, p)...) }

func TestModesThatDoNothing(t *testing.T) {
	if got := apply("", Profile{}); got != nil {
		t.Errorf("no mode: %+v", got)
	}
	for _, c := range []struct {
		mode Mode
		p    Profile
	}{{Off, Profile{}}, {Require, Profile{Open: "it is the user's"}}} {
		got := apply(c.mode, c.p)
		if len(got) != 1 || got[0].Held || !got[0].Waived || got[0].Reason == "" {
			t.Errorf("%s, %+v: %+v", c.mode, c.p, got)
		}
	}
}
