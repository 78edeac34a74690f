package queue_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"tabard/internal/rpc"
	"tabard/queue"
)

func TestAdmin(t *testing.T) {
	r := start(t, queue.Options{})
	ctx := context.Background()
	r.enqueue(message("a@x.example", "1@y.example", "2@y.example", "3@z.example"), text)
	r.enqueue(message("", "4@y.example"), strings.Repeat("x", 1000))
	all := r.list()
	if len(all) != 4 {
		t.Fatalf("list: %+v", all)
	}
	var paged []queue.Listed
	for after := (queue.EnvelopeID{}); ; after = paged[len(paged)-1].Envelope.ID {
		page, err := r.Find(ctx, queue.Filter{}, after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.List) == 0 {
			break
		}
		paged = append(paged, page.List...)
	}
	if len(paged) != 4 || paged[3].Envelope.Address != "4@y.example" {
		t.Errorf("pages: %+v", paged)
	}
	first, second := all[0].Envelope.ID.Message, all[3].Envelope.ID.Message
	s, err := r.Show(ctx, second, -1, 100)
	if err != nil || len(s.Body) != 100 || !s.Truncated || len(s.Envelopes) != 1 || s.Message.Size != 1000 {
		t.Errorf("Show: %+v, %v", s, err)
	}
	if s, err = r.Show(ctx, first, -1, 1<<20); err != nil || string(s.Body) != text || s.Truncated || len(s.Envelopes) != 3 {
		t.Errorf("Show: %+v, %v", s, err)
	}
	if n := r.remove(first, 1); n != 1 {
		t.Errorf("removed %d", n)
	}
	if n := r.remove(second, -1); n != 1 {
		t.Errorf("removed %d", n)
	}
	if n := r.remove(second, -1) + r.remove(first, 7); n != 0 {
		t.Errorf("removed %d that are not there", n)
	}
	r.retry(second, -1, retried{})
	if _, err := r.Show(ctx, second, -1, 1); !errors.Is(err, rpc.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := r.Find(ctx, queue.Filter{}, queue.EnvelopeID{}, 0); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("list of nothing: %v", err)
	}
	if s := r.stats(); s.Messages != 1 || s.Envelopes != 2 || s.Removed != 2 {
		t.Errorf("stats: %+v", s)
	}
	if strings.Count(r.log.String(), `msg="queue remove"`) != 2 {
		t.Errorf("log: %s", r.log)
	}
	// What was removed is not handed out.
	w := r.relayer()
	got := addresses(takeOne(t, w)) + " " + addresses(takeOne(t, w))
	if got != "1@y.example 3@z.example" {
		t.Errorf("jobs: %s", got)
	}
}

func TestRetryNow(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "1@y.example", "2@z.example"), text)
	w := r.relayer()
	for range 2 {
		done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Code: 450, Text: "later"})
	}
	id := r.list()[0].Envelope.ID.Message
	r.retry(id, 1, retried{Due: 1})
	if j := takeOne(t, w); addresses(j) != "2@z.example" || j.Envelopes[0].Attempts != 1 {
		t.Errorf("job: %+v", j)
	}
	// One in flight counts, and is left alone.
	r.retry(0, -1, retried{Due: 2})
	if j := takeOne(t, w); addresses(j) != "1@y.example" {
		t.Errorf("job: %+v", j)
	}
}

func TestRemoveWhileInFlight(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	w := r.relayer()
	j := takeOne(t, w)
	if n := r.remove(j.Message.ID, -1); n != 1 {
		t.Errorf("removed %d", n)
	}
	done(t, w, j, queue.Result{Outcome: queue.Failed, Code: 550, Text: "no"})
	if s := r.stats(); s.Messages != 0 || s.Envelopes != 0 || s.InFlight != 0 || s.Bounced != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// In JSON an id is what commands take: a number of that size does not survive most
// programs.
func TestIDsInJSON(t *testing.T) {
	want := queue.EnvelopeID{Message: 1883110805487026991, N: 3}
	text, err := json.Marshal(queue.Listed{Envelope: queue.Envelope{ID: want}})
	if err != nil || !strings.Contains(string(text), `"id":"1a22274ce9c1032f.3"`) {
		t.Errorf("%s, %v", text, err)
	}
	var back queue.Listed
	if err := json.Unmarshal(text, &back); err != nil || back.Envelope.ID != want {
		t.Errorf("back: %v, %v", back.Envelope.ID, err)
	}
	if text, err := json.Marshal(want.Message); err != nil || string(text) != `"1a22274ce9c1032f"` {
		t.Errorf("message: %s, %v", text, err)
	}
	var m queue.MessageID
	var e queue.EnvelopeID
	if m.UnmarshalText([]byte("1a22274ce9c1032f.3")) == nil || e.UnmarshalText([]byte("1a22274ce9c1032f")) == nil {
		t.Error("the id of the other kind is taken")
	}
}

// What is shown says which envelopes are being delivered.
func TestShowActive(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "1@y.example", "2@z.example"), text)
	got := takeOne(t, r.relayer())
	s, err := r.Show(t.Context(), got.Message.ID, -1, 0)
	if err != nil || len(s.Envelopes) != 2 || len(s.Active) != 1 || s.Active[0] != got.Envelopes[0].ID {
		t.Errorf("of %d envelopes being delivered: %v, %v", len(s.Envelopes), s.Active, err)
	}
}
