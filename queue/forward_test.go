package queue_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tabard/queue"
)

// What was forwarded from different domains may leave with different
// reverse-paths, and so in different jobs.
func TestJobPerForwardingDomain(t *testing.T) {
	s := message("a@x.example", "1@y.example", "2@y.example", "3@y.example", "4@y.example", "5@y.example", "6@y.example", "7@y.example")
	for i, rcpt := range []string{"1@y.example", "2@y.example", "list@one.example", "other@ONE.example", "list@two.example", "6@Y.example", "postmaster"} {
		s.Recipients[i].Recipient = rcpt
	}
	r := start(t, queue.Options{First: 10})
	r.enqueue(s, text)
	w := r.relayer()
	var got []string
	for range 5 {
		got = append(got, addresses(takeOne(t, w)))
	}
	if d := cmp.Diff([]string{"1@y.example 2@y.example", "3@y.example 4@y.example", "5@y.example", "6@y.example", "7@y.example"}, got); d != "" {
		t.Error(strings.TrimSpace(d))
	}
}
