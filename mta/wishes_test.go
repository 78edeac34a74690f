package mta

import (
	"strings"
	"testing"
	"time"

	"tabard/lookup"
	"tabard/queue"
)

// What the sender asked of the schedule goes on to servers that offer it. A message
// that must be there by a time does not go to others, nor to who wants more time.
func TestWishesGoOn(t *testing.T) {
	t.Parallel()
	hour := queue.DeliverBy{Time: time.Now().Add(time.Hour)}
	notify, trace, late := hour, hour, queue.DeliverBy{Time: time.Now().Add(-time.Minute), Notify: true}
	notify.Notify, trace.Trace = true, true
	for _, tt := range []struct {
		name     string
		ehlo     []string
		scheme   lookup.Scheme
		priority int
		by       queue.DeliverBy
		want     string // of MAIL; "about" a number of seconds that was an hour a moment ago
		enhanced string // of a failure
		keeps    bool
	}{
		{name: "no wish", ehlo: []string{"MT-PRIORITY", "DELIVERBY"}},
		{name: "priority", ehlo: []string{"MT-PRIORITY STANAG4406"}, priority: -4, want: " MT-PRIORITY=-4"},
		{name: "priority, not offered", priority: 4},
		{name: "return", ehlo: []string{"DELIVERBY"}, by: hour, want: " BY=about;R", keeps: true},
		{name: "return, not offered", by: hour, enhanced: "5.4.7"},
		{name: "return, time enough", ehlo: []string{"DELIVERBY 3500"}, by: hour, want: " BY=about;R", keeps: true},
		{name: "return, too short", ehlo: []string{"DELIVERBY 3700"}, by: hour, enhanced: "5.4.7"},
		{name: "return, LMTP", scheme: "lmtp", by: hour},
		{name: "notify, too short", ehlo: []string{"DELIVERBY 3700"}, by: notify, want: " BY=about;N", keeps: true},
		{name: "notify, not offered", by: notify},
		{name: "notify, late", ehlo: []string{"DELIVERBY"}, by: late, want: " BY=-about;N", keeps: true},
		{name: "trace, with priority", ehlo: []string{"DELIVERBY", "MT-PRIORITY"}, by: trace, priority: 9, want: " MT-PRIORITY=9 BY=about;RT", keeps: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, p := relayWorld(t)
			p.ehlo = tt.ehlo
			if tt.scheme != "" {
				relay := plainRelay
				relay.Scheme = tt.scheme
				w.lookup.set(lookup.Route{Hosts: []lookup.RelayURL{relay}})
			}
			j := job(1, "x@example.org")
			j.Message.Priority, j.Message.DeliverBy = tt.priority, tt.by
			res := w.start().deliver(j)[0]
			if tt.enhanced != "" {
				wantResult(t, res, queue.Failed, 0, tt.enhanced)
				if strings.Contains(p.said(), "MAIL") {
					t.Errorf("the server was asked all the same:\n%s", p.said())
				}
				return
			}
			wantResult(t, res, queue.Delivered, 250)
			if res.KeepsTime != tt.keeps {
				t.Errorf("keeps the time: %t", res.KeepsTime)
			}
			_, got, _ := strings.Cut(p.got()[0].from, ">")
			for _, about := range []string{"3600", "3599", "3598", "3597", "3596", "3595", "60", "61", "62", "63", "64", "65"} {
				got = strings.Replace(got, about+";", "about;", 1)
			}
			if got != tt.want {
				t.Errorf("MAIL with %q, want %q", got, tt.want)
			}
		})
	}
}
