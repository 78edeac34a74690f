package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

// exported is an export of all, as one Import of each message.
func exported(t *testing.T, a queue.Admin) []queue.Import {
	t.Helper()
	var all []queue.Import
	for after := (queue.EnvelopeID{}); ; {
		page, err := a.Export(t.Context(), queue.Export{After: after, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Messages {
			if n := len(all); n == 0 || all[n-1].Message.ID != m.ID {
				all = append(all, queue.Import{Export: "e", Exported: time.Now(), Message: m})
			}
		}
		for _, e := range page.Envelopes {
			i := slices.IndexFunc(all, func(in queue.Import) bool { return in.Message.ID == e.ID.Message })
			all[i].Envelopes = append(all[i].Envelopes, e.Portable)
			after = e.ID
		}
		if !page.More {
			return all
		}
	}
}

// imports imports a message; known is why nothing was done.
func imports(a queue.Admin, in queue.Import, body string) (n int, known string, err error) {
	ctx := context.Background()
	to, err := a.Import(ctx, in)
	if err != nil {
		return 0, "", err
	}
	if to.Known() == "" {
		if _, err := to.Write([]byte(body)); err != nil {
			to.Abort()
			return 0, "", err
		}
	}
	n, err = to.Commit(ctx)
	return n, to.Known(), err
}

// What has been tried goes on elsewhere where it was, with the time it had left, and
// over the wire; what is missing of a message comes to the rest of it.
func TestImport(t *testing.T) {
	t.Parallel()
	rcpts := numbered("n%d@y.example", 700)
	from, _ := deferred(t, rcpts...)
	in := exported(t, from.admin())[0]
	if len(in.Envelopes) != len(rcpts) || in.Envelopes[0].Attempts != 1 || !strings.Contains(in.Envelopes[0].Outcome, "later") {
		t.Fatalf("%d envelopes, first %+v", len(in.Envelopes), in.Envelopes[0])
	}
	to := start(t, queue.Options{})
	admin := to.admin()
	part := in
	part.Envelopes, part.Exported, part.Export = in.Envelopes[:600], time.Now().Add(-2*time.Hour), "part"
	if n, known, err := imports(admin, part, text); n != 600 || known != "" || err != nil {
		t.Fatalf("import: %d, %s, %v", n, known, err)
	}
	got, want := to.list()[0].Envelope, in.Envelopes[0].Envelope
	if late := got.Expires.Sub(want.Expires); late < 2*time.Hour || late > 3*time.Hour || got.Attempts != 1 || !got.Next.Equal(want.Next) || !got.Created.Equal(want.Created) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if _, known, err := imports(admin, in, text); known == "" || err != nil {
		t.Errorf("a copy of what is there: %q, %v", known, err)
	}
	in.Moved = true
	for _, want := range []int{100, 0} {
		if n, _, err := imports(admin, in, text); n != want || err != nil {
			t.Errorf("the rest: %d, %v; want %d", n, err, want)
		}
	}
	if s := to.stats(); s.Messages != 1 || s.Envelopes != 700 {
		t.Errorf("%+v", s)
	}
	// Due: it goes out.
	due := in
	due.Message.ID, due.Export = in.Message.ID+1, "due"
	due.Envelopes = slices.Clone(in.Envelopes[:1])
	due.Envelopes[0].ID.Message = due.Message.ID
	due.Envelopes[0].Next = time.Now().Add(-time.Hour)
	if n, _, err := imports(admin, due, text); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if j := takeOne(t, to.relayer()); j.Message.ID != due.Message.ID || j.Envelopes[0].Attempts != 1 || string(j.Body) != text {
		t.Errorf("%+v", j)
	}
}

// Nothing that breaks a rule gets in, and two at once do not double.
func TestImportRefuses(t *testing.T) {
	t.Parallel()
	from, _ := deferred(t, "1@y.example")
	good := exported(t, from)[0]
	r := start(t, queue.Options{})
	for name, change := range map[string]func(*queue.Import){
		"action": func(in *queue.Import) { in.Envelopes[0].Action = "none" }, "relay": func(in *queue.Import) { in.Envelopes[0].Action = "box" },
		"export": func(in *queue.Import) { in.Export = "" }, "future": func(in *queue.Import) { in.Message.ID = 1 << 62 },
		"other": func(in *queue.Import) { in.Envelopes[0].ID.Message++ }, "tries": func(in *queue.Import) { in.Envelopes[0].Attempts = -1 },
		"outcome": func(in *queue.Import) { in.Envelopes[0].Outcome = `{"kind":"failed"}` }, "none": func(in *queue.Import) { in.Envelopes = nil },
		"twice": func(in *queue.Import) { in.Envelopes = append(in.Envelopes, in.Envelopes[0]) }, "time": func(in *queue.Import) { in.Envelopes[0].Next = time.Time{} },
		"error": func(in *queue.Import) { in.Envelopes[0].LastError = "a\r\nb" }, "sender": func(in *queue.Import) { in.Message.Sender = "a\n" },
		"size": func(in *queue.Import) { in.Message.Size++ },
	} {
		in := good
		in.Envelopes = slices.Clone(good.Envelopes)
		change(&in)
		if _, _, err := imports(r, in, text); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := imports(r, good, text+"more"); !errors.Is(err, rpc.ErrTooLarge) {
		t.Errorf("too long: %v", err)
	}
	first, err := r.Import(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Import(t.Context(), good); !errors.Is(err, rpc.ErrBusy) {
		t.Errorf("two at once: %v", err)
	}
	first.Abort()
	if n, _, err := imports(r, good, text); n != 1 || err != nil {
		t.Errorf("after all: %d, %v", n, err)
	}
	good.Export, good.Message.Sender = "another", "b@x.example"
	if _, _, err := imports(r, good, text); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("another message with the id: %v", err)
	}
}

// What is being delivered is not removed when only what is idle shall be.
func TestRemoveIdle(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "1@y.example", "2@z.example"), text)
	j := takeOne(t, r.relayer())
	count, refused := r.steer(queue.Steer{Op: queue.OpRemove, Idle: true})
	if id := j.Envelopes[0].ID.String(); count != 1 || !strings.Contains(refused[id], "being delivered") {
		t.Errorf("%d removed, refused %v", count, refused)
	}
	page, err := r.Export(t.Context(), queue.Export{Limit: 10})
	if err != nil || len(page.Envelopes) != 1 || !page.Envelopes[0].InFlight {
		t.Errorf("%+v, %v", page, err)
	}
}

// Every order, forward and back, page by page.
func TestSorted(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{Retry: []time.Duration{time.Hour}, Jitter: func(time.Duration) time.Duration { return 0 }})
	w := r.relayer()
	for i, m := range []struct{ from, to, text string }{{"b@x.example", "3@z.example", "xxx"}, {"c@x.example", "1@y.example", "x"}, {"a@x.example", "2@y.example", "xx"}} {
		r.enqueue(message(m.from, m.to), m.text)
		for range i {
			done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Text: "later"})
			if _, err := r.Steer(t.Context(), queue.Steer{Op: queue.OpRetry, Filter: queue.Filter{Recipient: []string{m.to}}, Limit: 1}); err != nil {
				t.Fatal(err)
			}
		}
		done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Text: "later"})
	}
	admin := r.admin()
	for _, tt := range []struct {
		by   queue.SortKey
		want string
	}{{queue.SortAge, "2 1 3"}, {queue.SortNext, "3 1 2"}, {queue.SortSize, "1 2 3"}, {queue.SortAttempts, "3 1 2"}, {queue.SortSender, "2 3 1"}, {queue.SortRecipient, "1 2 3"}} {
		for _, reverse := range []bool{false, true} {
			var got []string
			for after := (*queue.Place)(nil); ; {
				page, err := admin.Sorted(t.Context(), queue.Filter{}, queue.Order{By: tt.by, Reverse: reverse}, after, 1)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range page.List {
					got = append(got, l.Envelope.Address[:1])
				}
				if after = &page.Last; !page.More {
					break
				}
			}
			if reverse {
				slices.Reverse(got)
			}
			if fmt.Sprint(got) != "["+tt.want+"]" {
				t.Errorf("%s, reverse %t: %v", tt.by, reverse, got)
			}
		}
	}
	// Of what is the same, what came first; and no line is lost between pages.
	page, err := admin.Sorted(t.Context(), queue.Filter{}, queue.Order{By: queue.SortDestination, Reverse: true}, nil, 2)
	if err != nil || len(page.List) != 2 || page.List[1].Envelope.Address != "1@y.example" {
		t.Fatalf("%+v, %v", page, err)
	}
	if page, err = admin.Sorted(t.Context(), queue.Filter{}, queue.Order{By: queue.SortDestination, Reverse: true}, &page.Last, 2); err != nil || len(page.List) != 1 || page.List[0].Envelope.Address != "2@y.example" {
		t.Errorf("%+v, %v", page, err)
	}
	if _, err := admin.Sorted(t.Context(), queue.Filter{}, queue.Order{By: "weight"}, nil, 1); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("bad key: %v", err)
	}
}
