package mta

import (
	"context"
	"slices"
	"strings"
	"testing"

	"tabard/lookup"
)

// rewriting is a lookup whose route depends on the recipient before aliases, as
// with SRS.
type rewriting struct{ *memLookup }

func (l rewriting) Route(ctx context.Context, r lookup.RouteRequest) (lookup.Route, error) {
	route, err := l.memLookup.Route(ctx, r)
	if r.Original != r.Recipient {
		route.MailFrom = "rewritten+" + r.Original
	}
	return route, err
}

// lookup is told the recipient as it was given, and its reverse-path goes with that
// message only, also over a session that is kept.
func TestRewrittenSender(t *testing.T) {
	w, p := relayWorld(t)
	w.mta.lookup = rewriting{w.lookup}
	w.start()
	for id, original := range []string{"x@example.org", "info@own.example", "x@example.org"} {
		j := job(id+1, "x@example.org")
		j.Envelopes[0].Recipient = original
		w.deliver(j)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var from []string
	for _, m := range p.mails {
		path, _, _ := strings.Cut(m.from, " ")
		from = append(from, path)
	}
	if want := []string{"FROM:<" + testFrom + ">", "FROM:<rewritten+info@own.example>", "FROM:<" + testFrom + ">"}; !slices.Equal(from, want) || p.conns != 1 {
		t.Errorf("reverse-paths %q over %d connections", from, p.conns)
	}
}
