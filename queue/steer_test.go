package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

// steer does one thing to all that a filter chooses, page by page of two.
func (r *rig) steer(s queue.Steer) (count int, refused map[string]string) {
	r.t.Helper()
	refused = make(map[string]string)
	for s.Limit = 2; ; {
		out, err := r.Steer(context.Background(), s)
		if err != nil {
			r.t.Fatal(err)
		}
		count += out.Count
		for _, f := range out.Refused {
			refused[f.ID.String()] = f.Why
		}
		if s.After = out.Last; !out.More {
			return count, refused
		}
	}
}

// deferred fills a queue with envelopes that have been tried once, and wait.
func deferred(t *testing.T, rcpts ...string) (*rig, queue.Worker) {
	t.Helper()
	r := start(t, queue.Options{Retry: []time.Duration{time.Hour}})
	r.enqueue(message("a@x.example", rcpts...), text)
	w := r.relayer()
	for left := len(rcpts); left > 0; {
		j := takeOne(t, w)
		left -= len(j.Envelopes)
		done(t, w, j, queue.Result{Outcome: queue.Deferred, Code: 450, Text: "later, " + addresses(j)})
	}
	return r, w
}

func (r *rig) find(f queue.Filter) string {
	r.t.Helper()
	p, err := r.Find(context.Background(), f, queue.EnvelopeID{}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, l := range p.List {
		all = append(all, l.Envelope.Address)
	}
	return strings.Join(all, " ")
}

// Every filter chooses its own.
func TestFilter(t *testing.T) {
	t.Parallel()
	r, w := deferred(t, "1@y.example", "2@z.example", "100%_a@bücher.example")
	s := message("", "3@y.example")
	s.Recipients[0].Recipient = "list@local.example"
	r.enqueue(s, text)
	if got := addresses(takeOne(t, w)); got != "3@y.example" {
		t.Fatalf("took %s", got)
	}
	s = message("b@sub.x.example")
	s.Recipients = append(s.Recipients, mailbox("alice"))
	r.enqueue(s, text)
	all := r.list()
	first := all[0].Envelope.ID
	hour := time.Now().Add(time.Hour)
	for i, tt := range []struct {
		f    queue.Filter
		want string
	}{
		{queue.Filter{}, "1@y.example 2@z.example 100%_a@bücher.example 3@y.example alice@local.example"},
		{queue.Filter{IDs: []string{first.Message.String()}}, "1@y.example 2@z.example 100%_a@bücher.example"},
		{queue.Filter{IDs: []string{first.Message.String() + ".1", all[3].Envelope.ID.String()}}, "2@z.example 3@y.example"},
		{queue.Filter{Sender: []string{"A@X.example"}}, "1@y.example 2@z.example 100%_a@bücher.example"},
		{queue.Filter{Sender: []string{"x.example"}}, "1@y.example 2@z.example 100%_a@bücher.example"},
		{queue.Filter{Sender: []string{"*.x.example", "<>"}}, "3@y.example alice@local.example"},
		{queue.Filter{Recipient: []string{"<1@y.example>"}}, "1@y.example"},
		{queue.Filter{Recipient: []string{"list@local.example"}}, "3@y.example"},
		{queue.Filter{Recipient: []string{"100%_*@*"}}, "100%_a@bücher.example"},
		{queue.Filter{Recipient: []string{"100_%*@*"}}, ""},
		{queue.Filter{Domain: []string{"y.example."}}, "1@y.example 3@y.example"},
		{queue.Filter{Domain: []string{"example"}}, ""},
		{queue.Filter{Destination: []string{"alice", "out/z.example"}}, "2@z.example alice@local.example"},
		{queue.Filter{Destination: []string{"bücher.example"}}, "100%_a@bücher.example"},
		{queue.Filter{Domain: []string{"XN--bcher-kva.example"}}, "100%_a@bücher.example"},
		{queue.Filter{Action: []string{"box"}}, "alice@local.example"},
		{queue.Filter{Error: []string{"LATER, 2@"}}, "2@z.example"},
		{queue.Filter{States: []queue.State{queue.StateDeferred}, Domain: []string{"y.example"}}, "1@y.example"},
		{queue.Filter{States: []queue.State{queue.StateActive}}, "3@y.example"},
		{queue.Filter{States: []queue.State{queue.StateDue, queue.StateHeld}}, "alice@local.example"},
		{queue.Filter{Attempts: &queue.Range{Min: 0, Max: 0}}, "3@y.example alice@local.example"},
		{queue.Filter{Attempts: &queue.Range{Min: 1, Max: -1}, Domain: []string{"z.example"}}, "2@z.example"},
		{queue.Filter{Since: hour}, ""},
		{queue.Filter{Before: hour, Domain: []string{"z.example"}}, "2@z.example"},
		{queue.Filter{Until: first.Message + 1}, "1@y.example 2@z.example 100%_a@bücher.example"},
	} {
		if got := r.find(tt.f); got != tt.want {
			t.Errorf("%d: %+v chooses %q, want %q", i, tt.f, got, tt.want)
		}
	}
	for _, f := range []queue.Filter{
		{IDs: []string{"x"}}, {IDs: make([]string, 1001)}, {Sender: []string{""}}, {Error: []string{"a\nb"}}, {Action: []string{strings.Repeat("x", 600)}},
		{Domain: make([]string, 51)}, {States: []queue.State{"lost"}}, {Error: []string{"*a*b*c*d*e*f*g*h*i"}},
	} {
		if _, err := r.Find(context.Background(), f, queue.EnvelopeID{}, 1); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%.100v: %v", f, err)
		}
	}
}

func TestCountBy(t *testing.T) {
	t.Parallel()
	r, _ := deferred(t, "1@y.example", "2@y.example", "3@Z.example")
	ctx := context.Background()
	got, err := r.Count(ctx, queue.Filter{}, []queue.Field{queue.FieldDomain, queue.FieldSenderDomain, queue.FieldState, queue.FieldAttempts}, 10)
	text := ""
	for _, g := range got.Groups {
		text += fmt.Sprintln(g.Values, g.Envelopes, time.Since(g.Oldest) < time.Minute)
	}
	if err != nil || text != "[y.example x.example deferred 1] 2 true\n[z.example x.example deferred 1] 1 true\n" || got.All != 2 || got.Envelopes != 3 {
		t.Errorf("%s%+v, %v", text, got, err)
	}
	if got, err = r.Count(ctx, queue.Filter{Domain: []string{"y.example"}}, nil, 1); err != nil || got.Envelopes != 2 || got.Until <= r.list()[0].Envelope.ID.Message {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = r.Count(ctx, queue.Filter{Domain: []string{"none"}}, nil, 1); err != nil || got.Envelopes != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = r.Count(ctx, queue.Filter{}, []queue.Field{queue.FieldRecipient}, 1); err != nil || len(got.Groups) != 1 || got.All != 3 || got.Envelopes != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, by := range [][]queue.Field{{"body"}, {"state", "state", "state", "state", "state"}} {
		if _, err := r.Count(ctx, queue.Filter{}, by, 1); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%v: %v", by, err)
		}
	}
}

// What is held by hand is held, over a restart too, and no other; what a worker has
// is refused.
func TestHoldByHand(t *testing.T) {
	t.Parallel()
	r, w := deferred(t, "1@y.example", "2@y.example", "3@z.example")
	r.enqueue(message("a@x.example", "4@y.example"), text)
	j := takeOne(t, w)
	hold := queue.Steer{Op: queue.OpHold, Filter: queue.Filter{Domain: []string{"y.example"}}, Reason: "look\nat it"}
	count, refused := r.steer(hold)
	if count != 2 || !strings.Contains(refused[j.Envelopes[0].ID.String()], "being delivered") {
		t.Errorf("%d held, %v", count, refused)
	}
	if n, refused := r.steer(hold); n != 0 || len(refused) != 3 {
		t.Errorf("again: %d held, %v", n, refused)
	}
	r = r.reopen(queue.Options{})
	if got := r.find(queue.Filter{States: []queue.State{queue.StateHeld}}); got != "1@y.example 2@y.example" {
		t.Errorf("held: %s", got)
	}
	if e := r.list()[0].Envelope; !e.Held || e.HeldFor != "held by hand: look at it" || e.Attempts != 1 {
		t.Errorf("%+v", e)
	}
	if n, refused := r.steer(queue.Steer{Op: queue.OpRetry, Filter: queue.Filter{Sender: []string{"a@x.example"}}}); n != 2 || len(refused) != 2 {
		t.Errorf("retry: %d, %v", n, refused)
	}
	w = r.relayer()
	one, two := takeOne(t, w), takeOne(t, w)
	got := addresses(one) + " " + addresses(two)
	if got != "3@z.example 4@y.example" && got != "4@y.example 3@z.example" {
		t.Errorf("took %s", got)
	}
	done(t, w, one, queue.Result{Outcome: queue.Deferred})
	done(t, w, two, queue.Result{Outcome: queue.Deferred})
	if n, refused := r.steer(queue.Steer{Op: queue.OpRelease}); n != 2 || len(refused) != 2 {
		t.Errorf("release: %d, %v", n, refused)
	}
	if got := addresses(takeOne(t, w)); got != "1@y.example 2@y.example" {
		t.Errorf("took %s", got)
	}
	if list, err := r.Holds(context.Background()); err != nil || len(list) != 0 {
		t.Errorf("holds left: %v, %v", list, err)
	}
}

// A hold of a destination is not taken off single envelopes.
func TestReleaseOfStandingHold(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	r.hold(queue.HoldDestination, "y.example", "")
	r.enqueue(message("a@x.example", "1@y.example"), text)
	eventually(t, "held", func() bool { return r.heldCount() == 1 })
	for _, op := range []queue.Op{queue.OpRelease, queue.OpRetry, queue.OpHold} {
		if n, refused := r.steer(queue.Steer{Op: op}); n != 0 || len(refused) != 1 {
			t.Errorf("%s: %d, %v", op, n, refused)
		}
	}
}

// What waits for its turn in memory is changed, too.
func TestSteerWaiting(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "1@y.example", "2@z.example", "3@w.example", "4@v.example"), text)
	domain := func(d string) queue.Filter { return queue.Filter{Domain: []string{d}} }
	for _, s := range []queue.Steer{
		{Op: queue.OpHold, Filter: domain("y.example")}, {Op: queue.OpRemove, Filter: domain("z.example")},
		{Op: queue.OpRetry, Filter: domain("v.example")},
		{Op: queue.OpRedirect, Filter: domain("w.example"), Action: "smart"},
	} {
		dry := s
		dry.DryRun, dry.Limit = true, 10
		if out, err := r.Steer(context.Background(), dry); err != nil || len(out.Changed) != 1 || len(out.Refused) != 0 {
			t.Errorf("dry %s: %+v, %v", s.Op, out, err)
		}
		if n, refused := r.steer(s); n != 1 || len(refused) != 0 {
			t.Errorf("%s: %d, %v", s.Op, n, refused)
		}
	}
	w := r.relayer()
	got := make(map[string]string)
	for range 2 {
		j := takeOne(t, w)
		got[addresses(j)] = j.Envelopes[0].Action
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
	if got["4@v.example"] != "out" || got["3@w.example"] != "smart" {
		t.Errorf("took %v", got)
	}
	idle(t, w)
	if n, _ := r.steer(queue.Steer{Op: queue.OpRelease}); n != 1 {
		t.Errorf("%d released", n)
	}
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
	eventually(t, "nothing is left", func() bool { s := r.stats(); return s.Envelopes == 0 && s.Messages == 0 && s.Removed == 1 })
}

// A bounce is a report of failure with its reason; who cannot be told is refused.
func TestBounceNow(t *testing.T) {
	t.Parallel()
	r, w := deferred(t, "1@y.example", "2@z.example")
	s := message("", "3@v.example")
	r.enqueue(s, text)
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred})
	s = message("a@x.example", "4@u.example")
	s.Recipients[0].Notify = "NEVER"
	r.enqueue(s, text)
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred})
	n, refused := r.steer(queue.Steer{Op: queue.OpBounce, Reason: "the company is no more", Filter: queue.Filter{Domain: []string{"y.example", "v.example", "u.example"}}})
	if n != 1 || len(refused) != 2 {
		t.Errorf("%d, %v", n, refused)
	}
	j := takeOne(t, w)
	body := string(j.Body)
	if addresses(j) != "a@x.example" || j.Message.Sender != "" || !strings.Contains(body, "the company is no more") || !strings.Contains(body, "Action: failed") || !strings.Contains(body, "1@y.example") || strings.Contains(body, "2@z.example") {
		t.Errorf("%s: %s", addresses(j), body)
	}
	if got := r.find(queue.Filter{Sender: []string{"a@x.example"}}); got != "2@z.example 4@u.example" {
		t.Errorf("left: %s", got)
	}
}

// The rules are asked for another recipient; the body stays, and no envelope is in
// neither place.
func TestRedirect(t *testing.T) {
	t.Parallel()
	r, w := deferred(t, "1@y.example", "2@z.example")
	old := r.list()[0].Envelope
	y := queue.Filter{Domain: []string{"y.example"}}
	if n, refused := r.steer(queue.Steer{Op: queue.OpRedirect, Filter: y, To: "no@new.example"}); n != 0 || !strings.Contains(refused[old.ID.String()], "550 5.1.1 nobody") {
		t.Errorf("%d, %v", n, refused)
	}
	if n, refused := r.steer(queue.Steer{Op: queue.OpRedirect, Filter: y, To: "two@new.example"}); n != 1 || len(refused) != 0 {
		t.Errorf("%d, %v", n, refused)
	}
	j := takeOne(t, w)
	e := j.Envelopes[0]
	if e.Address != "one@new.example" || e.Recipient != "1@y.example" || e.ID.N != 2 || e.Attempts != 0 || !e.Expires.Equal(old.Expires) || string(j.Body) != text {
		t.Errorf("%+v", j)
	}
	done(t, w, j, queue.Result{Outcome: queue.Delivered})
	box, release := r.LocalWorker(1000)
	defer release()
	done(t, box, takeOne(t, box), queue.Result{Outcome: queue.Delivered})
	if s := r.stats(); s.Envelopes != 1 || s.Messages != 1 {
		t.Errorf("%+v", s)
	}
	for _, s := range []queue.Steer{
		{Op: queue.OpRedirect, Limit: 1}, {Op: queue.OpRedirect, Limit: 1, Action: "none"}, {Op: queue.OpRedirect, Limit: 1, To: "not an address"},
		{Op: queue.OpRedirect, Limit: 1, To: "a@b.example", Action: "out"}, {Op: "burn", Limit: 1}, {Op: queue.OpRetry},
	} {
		if _, err := r.Steer(context.Background(), s); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if n, refused := r.steer(queue.Steer{Op: queue.OpRedirect, Action: "box"}); n != 0 || len(refused) != 1 {
		t.Errorf("to a local action: %d, %v", n, refused)
	}
}
