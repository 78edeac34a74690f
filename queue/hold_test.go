package queue_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
	"tabard/queue/sqlite"
)

func (r *rig) hold(kind queue.HoldKind, value, reason string) queue.Hold {
	r.t.Helper()
	h, err := r.Hold(context.Background(), queue.Hold{Kind: kind, Value: value, Reason: reason})
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func (r *rig) release(kind queue.HoldKind, value string) int {
	r.t.Helper()
	n, err := r.Release(context.Background(), kind, value)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// retried is what became of envelopes that were to be tried now: due, or with a worker
// already, and kept back by a hold.
type retried struct{ Due, Held int }

// retry makes envelopes due, as far as they are not held.
func (r *rig) retry(id queue.MessageID, n int, want retried) {
	r.t.Helper()
	if got := r.retryNow(id, n); got != want {
		r.t.Errorf("retry: %+v; want %+v", got, want)
	}
}

func (r *rig) retryNow(id queue.MessageID, n int) retried {
	r.t.Helper()
	done, busy, held := steerAll(r.t, r, queue.OpRetry, only(id, n))
	return retried{Due: done + busy, Held: held}
}

// heldCount is how many envelopes came due and are kept back.
func (r *rig) heldCount() int64 {
	r.t.Helper()
	list, err := r.Holds(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	var n int64
	for _, h := range list {
		n += h.Held
	}
	return n
}

// Every kind keeps back its own mail and no other: what waits, and what comes. It
// says why, outlives a restart, and gives all back.
func TestHold(t *testing.T) {
	for _, tt := range []struct {
		kind        queue.HoldKind
		value       string
		held, other queue.Submission
	}{
		{queue.HoldDestination, "Y.example", message("a@x.example", "b@y.example"), message("a@x.example", "b@z.example")},
		{queue.HoldDestination, "bücher.example", message("a@x.example", "b@xn--bcher-kva.example"), message("a@x.example", "b@z.example")},
		{queue.HoldRoute, "y.example.", message("a@x.example", "b@y.example"), message("a@x.example", "b@z.example")},
		{queue.HoldSender, "A@x.example", message("a@x.example", "b@y.example"), message("c@x.example", "b@y.example")},
		{queue.HoldSender, "@x.example", message("a@x.example", "b@y.example"), message("a@sub.x.example", "b@y.example")},
		{queue.HoldSender, "bücher.example", message("a@bücher.example", "b@y.example"), message("a@x.example", "b@y.example")},
		{queue.HoldSender, "a@bücher.example", message("A@xn--bcher-kva.example", "b@y.example"), message("b@xn--bcher-kva.example", "b@y.example")},
		{queue.HoldSender, "<A@x.example>", message("a@x.example", "b@y.example"), message("c@x.example", "b@y.example")},
		{queue.HoldSender, "<>", message("", "b@y.example"), message("a@x.example", "b@y.example")},
		{queue.HoldRule, "smart", rule("smart"), rule("out")},
	} {
		t.Run(string(tt.kind)+" "+tt.value, func(t *testing.T) {
			t.Parallel()
			r := start(t, queue.Options{})
			r.enqueue(tt.held, text) // waits
			r.hold(tt.kind, tt.value, "because of\nit")
			r.enqueue(tt.held, text) // comes
			eventually(t, "both held", func() bool { return r.heldCount() == 2 })
			r = r.reopen(queue.Options{})
			r.enqueue(tt.held, text)
			r.enqueue(tt.other, text)
			w := r.relayer()
			j := takeOne(t, w)
			if addresses(j) != tt.other.Recipients[0].Address || j.Message.Sender != tt.other.Message.Sender {
				t.Errorf("job for %s from %s", addresses(j), j.Message.Sender)
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
			idle(t, w)
			for _, l := range r.list() {
				e := l.Envelope
				if !e.Held || !strings.Contains(e.HeldFor, "because of it") || e.Attempts != 0 || l.InFlight {
					t.Errorf("listed as %+v", l)
				}
			}
			eventually(t, "the third held", func() bool { return r.heldCount() == 3 })
			if n := r.release(tt.kind, tt.value); n != 3 {
				t.Errorf("%d released", n)
			}
			for _, j := range takeAll(t, w, 2) {
				done(t, w, j, queue.Result{Outcome: queue.Delivered})
			}
			done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
			if s := r.stats(); s.Envelopes != 0 {
				t.Errorf("left: %+v", s)
			}
		})
	}
}

func rule(action string) queue.Submission {
	s := message("a@x.example", "b@"+action+".example")
	s.Recipients[0].Action = action
	return s
}

// What is not due yet is shown as held at once, and kept back when it is due.
func TestHoldOfDeferred(t *testing.T) {
	r := start(t, queue.Options{Retry: []time.Duration{time.Hour}})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	w := r.relayer()
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Text: "later"})
	h := r.hold(queue.HoldDestination, "y.example", "")
	if e := r.list()[0].Envelope; !e.Held || e.HeldFor != h.String() || e.LastError != "later" {
		t.Errorf("listed as %+v", e)
	}
	r.retry(0, -1, retried{Held: 1})
	s, err := r.Show(context.Background(), r.list()[0].Envelope.ID.Message, -1, 10)
	if err != nil || !s.Envelopes[0].Held {
		t.Errorf("shown as %+v, %v", s, err)
	}
	if n := r.release(queue.HoldDestination, "y.example"); n != 0 {
		t.Errorf("%d released, which had not come due", n)
	}
	r.retry(0, -1, retried{Due: 1})
	if e := takeOne(t, w).Envelopes[0]; e.Attempts != 1 || e.LastError != "later" {
		t.Errorf("came as %+v", e)
	}
}

// What a hold keeps back is not made due by hand: it stays held, and nothing of it
// changes. What a worker has already is being tried.
func TestRetryOfHeld(t *testing.T) {
	r := start(t, queue.Options{})
	w := r.relayer()
	r.enqueue(message("a@x.example", "1@z.example", "2@z.example"), text)
	inFlight := takeOne(t, w)
	r.hold(queue.HoldDestination, "z.example", "")
	r.hold(queue.HoldDestination, "y.example", "")
	r.enqueue(message("a@x.example", "1@y.example"), text)
	eventually(t, "kept back", func() bool { return r.heldCount() == 1 })
	before := r.list()
	r.retry(0, -1, retried{Due: 2, Held: 1})
	r.retry(before[2].Envelope.ID.Message, 0, retried{Held: 1})
	idle(t, w)
	if after := r.list()[2]; after != before[2] || r.heldCount() != 1 {
		t.Errorf("before %+v, after %+v", before[2], after)
	}
	done(t, w, inFlight, queue.Result{Outcome: queue.Delivered})
}

// Local mail is held too, also when it is looked up at the moment.
func TestHoldOfLocal(t *testing.T) {
	r := start(t, queue.Options{})
	for i := range 30 {
		s := message("a@x.example")
		s.Recipients = append(s.Recipients, mailbox(fmt.Sprint("u", i)))
		r.enqueue(s, text)
	}
	r.hold(queue.HoldRule, "box", "")
	eventually(t, "all held", func() bool { return r.heldCount() == 30 })
	r.release(queue.HoldRule, "box")
	w, end := r.LocalWorker(1000)
	defer end()
	takeAll(t, w, 30)
}

// While holds come and go, nothing is lost, and nothing stays behind.
func TestHoldsComeAndGo(t *testing.T) {
	r := start(t, queue.Options{MaxActive: 20, First: 10})
	const n = 200
	for i := range n {
		r.enqueue(message("a@x.example", fmt.Sprintf("b@d%d.example", i%4)), text)
	}
	w := r.relayer()
	stop := make(chan struct{})
	flipped := make(chan struct{})
	go func() {
		defer close(flipped)
		for i := 0; ; i++ {
			value := fmt.Sprintf("d%d.example", i%4)
			_, err := r.Hold(context.Background(), queue.Hold{Kind: queue.HoldRoute, Value: value})
			if err == nil {
				_, err = r.Release(context.Background(), queue.HoldRoute, value)
			}
			if err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for left := n; left > 0; {
		for _, j := range take(t, w, 5) {
			left -= len(j.Envelopes)
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
	}
	close(stop)
	<-flipped
	if s := r.stats(); s.Envelopes != 0 || s.Delivered != n {
		t.Errorf("left: %+v", s)
	}
}

// A worker that finds a route paused gives the mail back for as long as that is.
func TestPausedByWorker(t *testing.T) {
	r := start(t, queue.Options{})
	h := r.hold(queue.HoldRoute, "mx.example.net", "they asked")
	other := r.hold(queue.HoldSender, "q@x.example", "")
	r.enqueue(message("a@x.example", "b@y.example"), text)
	w := r.relayer()
	j := takeOne(t, w)
	if len(j.Paused) != 1 || j.Paused[0].ID != h.ID || !j.Paused[0].Over("mx.example.net:25") || j.Paused[0].Over("mx.example.net.other:25") {
		t.Errorf("paused: %+v", j.Paused)
	}
	done(t, w, j, queue.Result{Outcome: queue.Paused, Hold: other.ID}) // not a route
	j = takeOne(t, w)
	done(t, w, j, queue.Result{Outcome: queue.Paused, Hold: h.ID, Servers: "mx.example.net:25"})
	idle(t, w)
	if e := r.list()[0].Envelope; !e.Held || !strings.Contains(e.HeldFor, "they asked") || e.Attempts != 0 {
		t.Errorf("listed as %+v", e)
	}
	routes, err := r.Routes(context.Background())
	if err != nil || len(routes) != 1 || routes[0].Domain != "y.example" || routes[0].Held != 1 || routes[0].Waiting != 1 || !strings.Contains(routes[0].Paused, "they asked") {
		t.Errorf("routes %+v, %v", routes, err)
	}
	if n := r.release(queue.HoldRoute, "MX.example.net"); n != 1 {
		t.Errorf("%d resumed", n)
	}
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
}

func TestHoldRefusals(t *testing.T) {
	r := start(t, queue.Options{})
	ctx := context.Background()
	for _, h := range []queue.Hold{
		{Kind: "what", Value: "x"}, {Kind: queue.HoldRule}, {Kind: queue.HoldSender, Value: "a\nb"}, {Kind: queue.HoldDestination, Value: "b@y.example"},
		{Kind: queue.HoldRoute, Value: strings.Repeat("x", 600)},
	} {
		if _, err := r.Hold(ctx, h); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	if _, err := r.Release(ctx, queue.HoldRule, "none"); !errors.Is(err, rpc.ErrNotFound) {
		t.Errorf("release of what is not held: %v", err)
	}
	first := r.hold(queue.HoldRule, "out", "one")
	// A name that is no action's is most likely a slip; one that nobody can tell of
	// is held, and a hold that is there can be changed when its action is gone.
	if _, err := r.Hold(ctx, queue.Hold{Kind: queue.HoldRule, Value: "owt"}); !errors.Is(err, rpc.ErrInvalid) ||
		!strings.Contains(err.Error(), `no action "owt", only ["box" "brief" "out" "smart"]`) {
		t.Errorf("hold of an action that there is not: %v", err)
	}
	r.local.set(func(l *local) { l.down = errors.New("tables are down") })
	r.hold(queue.HoldRule, "later", "")
	r.local.set(func(l *local) { l.down = nil })
	r.hold(queue.HoldRule, "later", "as before")
	r.release(queue.HoldRule, "later")
	if again := r.hold(queue.HoldRule, "out", "two"); again.ID != first.ID || again.Reason != "two" {
		t.Errorf("again: %+v, first %+v", again, first)
	}
	if list, err := r.Holds(ctx); err != nil || len(list) != 1 || list[0].Reason != "two" {
		t.Errorf("holds: %+v, %v", list, err)
	}
}

// A hold whose transaction ended in doubt is not in force, and in nobody's way.
func TestHoldAfterFailure(t *testing.T) {
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "queue.db"))
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Store: store}
	r := openOn(t, f, queue.Options{}, &local{})
	ctx := t.Context()
	f.after.Store(true)
	if _, err := r.Hold(ctx, queue.Hold{Kind: queue.HoldDestination, Value: "y.example"}); !errors.Is(err, errBroken) {
		t.Errorf("Hold: %v", err)
	}
	f.after.Store(false)
	r.hold(queue.HoldDestination, "z.example", "")
	r.hold(queue.HoldDestination, "y.example", "again")
	r.enqueue(message("a@x.example", "b@y.example", "b@z.example"), text)
	eventually(t, "both held", func() bool { return r.heldCount() == 2 })
	if n := r.release(queue.HoldDestination, "y.example"); n != 1 {
		t.Errorf("%d released", n)
	}
}

// However much is paused, a worker far away gets its jobs.
func TestManyPauses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	store, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	change := &queue.Change{}
	for i := range 1000 {
		value := fmt.Sprintf("%d.%s%s:65535", i+1000, strings.Repeat("long.", 95), "example")
		h := queue.Hold{ID: int64(i + 2), Kind: queue.HoldRoute, Value: value, Reason: strings.Repeat("r", 200)}
		change.Hold = append(change.Hold, h)
	}
	if err := errors.Join(store.Apply(t.Context(), []*queue.Change{change}), store.Close()); err != nil {
		t.Fatal(err)
	}
	r := open(t, path, queue.Options{}, &local{})
	for i := range 12 {
		r.enqueue(message("a@x.example", fmt.Sprintf("b@y%d.example", i)), strings.Repeat("0123456789abcde\n", queue.InlineBody/16))
	}
	w, _, _ := r.remoteRelay(t)
	for n := 0; n < 12; {
		jobs := take(t, w, 1000)
		if len(jobs[0].Paused) != 1000 {
			t.Fatalf("%d pauses", len(jobs[0].Paused))
		}
		for _, j := range jobs {
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
			n++
		}
	}
	if _, err := r.Hold(t.Context(), queue.Hold{Kind: queue.HoldRoute, Value: strings.Repeat("x", 260)}); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("pause of what is no domain: %v", err)
	}
}

// Routes tells where mail waits and how the way there does.
func TestRoutes(t *testing.T) {
	r := start(t, queue.Options{})
	w := r.relayer()
	s := rule("smart")
	r.enqueue(s, text)
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered, Servers: "relay.example:25", Source: "192.0.2.9", Window: 6})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	until := time.Now().Add(time.Hour)
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Deferred, Text: "refused", NotBefore: until, Servers: "mx.y.example:25", Window: 1})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	eventually(t, "both waiting", func() bool { return r.stats().Envelopes == 2 })
	routes, err := r.Routes(context.Background())
	if err != nil || len(routes) != 2 {
		t.Fatalf("routes %+v, %v", routes, err)
	}
	a, b := routes[0], routes[1]
	if a.Domain != "y.example" || a.Action != "out" || a.Waiting != 2 || a.LastError != "refused" || !a.Until.Equal(until) || a.Servers != "mx.y.example:25" {
		t.Errorf("with mail: %+v", a)
	}
	if b.Action != "smart" || b.Domain != "" || b.Servers != "relay.example:25" || b.Source != "192.0.2.9" || b.Window != 6 || b.Waiting != 0 {
		t.Errorf("without mail: %+v", b)
	}
}

// Mail that is held does not expire, whenever it comes due; released, it is tried
// before it may.
func TestHeldDoesNotExpire(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{TTL: 150 * time.Millisecond, Retry: []time.Duration{time.Hour}})
	w := r.relayer()
	r.enqueue(message("a@x.example", "b@y.example"), text)
	j := takeOne(t, w)
	done(t, w, j, queue.Result{Outcome: queue.Deferred, Text: "later"}) // due again as it expires
	r.enqueue(message("a@x.example", "c@y.example"), text)
	last := takeOne(t, w)
	r.hold(queue.HoldDestination, "y.example", "")
	r.enqueue(message("a@x.example", "d@y.example"), text)
	eventually(t, "time over", func() bool { return time.Now().After(last.Envelopes[0].Expires) })
	done(t, w, last, queue.Result{Outcome: queue.Deferred, Text: "too late"})
	eventually(t, "all held", func() bool { return r.heldCount() == 3 })
	if n := r.release(queue.HoldDestination, "y.example"); n != 3 {
		t.Errorf("%d released", n)
	}
	for _, j := range takeAll(t, w, 2) {
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
	}
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Delivered})
	if s := r.stats(); s.Expired != 0 || s.Delivered != 3 {
		t.Errorf("stats: %+v", s)
	}
}

// After a hold, mail goes to the workers of the user id that its user has then.
func TestHoldOfUserWithAnotherID(t *testing.T) {
	t.Parallel()
	r := start(t, queue.Options{})
	s := message("a@x.example")
	s.Recipients = append(s.Recipients, mailbox("u"))
	r.enqueue(s, text)
	eventually(t, "ready", func() bool { return r.Ready(1000) == 1 })
	r.hold(queue.HoldRule, "box", "")
	eventually(t, "held", func() bool { return r.heldCount() == 1 })
	r.local.set(func(l *local) { l.uids = map[string]int{"u": 1001} })
	r.release(queue.HoldRule, "box")
	w, end := r.LocalWorker(1001)
	defer end()
	if j := takeOne(t, w); j.Delivery.UID != 1001 {
		t.Errorf("for user id %d", j.Delivery.UID)
	}
}
