package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

func TestRecipientsTravelTogether(t *testing.T) {
	r := start(t, queue.Options{})
	s := message("a@x.example", "1@Y.example", "2@z.example", "3@y.example", "4@bücher.example", "5@xn--bcher-kva.example")
	for _, a := range []string{"6@p.example", "7@q.example"} {
		e := relay(a)
		e.Action = "smart"
		s.Recipients = append(s.Recipients, e)
	}
	r.enqueue(s, text)
	r.enqueue(message("a@x.example", numbered("n%d@many.example", 130)...), text)
	w := r.relayer()
	var got []string
	sizes := map[int]int{}
	for range 6 {
		j := takeOne(t, w)
		if strings.Contains(addresses(j), "many.example") {
			sizes[len(j.Envelopes)]++
			continue
		}
		got = append(got, j.Domain+": "+addresses(j))
	}
	want := []string{
		"y.example: 1@Y.example 3@y.example", "z.example: 2@z.example",
		"xn--bcher-kva.example: 4@bücher.example 5@xn--bcher-kva.example", "p.example: 6@p.example 7@q.example",
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("jobs: %q\nwant: %q", got, want)
		}
	}
	if sizes[100] != 1 || sizes[30] != 1 {
		t.Errorf("jobs of 130 recipients: %v", sizes)
	}
}

// A destination that answers never must not keep others from being tried,
// however much of its mail is waiting, in memory or on disk.
func TestDeadDestinationStarvesNobody(t *testing.T) {
	for _, when := range []string{"new mail", "after a restart"} {
		t.Run(when, func(t *testing.T) {
			o := queue.Options{MaxActive: 80, Concurrency: 3}
			r := start(t, o)
			for i := range 200 {
				r.enqueue(message("a@x.example", fmt.Sprintf("n%d@dead.example", i)), text)
			}
			r.enqueue(message("a@x.example", "b@alive.example", "c@fine.example"), text)
			if when != "new mail" {
				r = r.reopen(o)
			}
			w := r.relayer()
			seen := map[string]int{}
			for seen["alive.example"] == 0 || seen["fine.example"] == 0 {
				for _, j := range take(t, w, 10) {
					seen[j.Domain]++
					if j.Domain != "dead.example" { // the dead ones stay with the worker
						done(t, w, j, queue.Result{Outcome: queue.Delivered})
					}
				}
			}
			if seen["dead.example"] > 3 {
				t.Errorf("%d jobs in flight for one destination, want 3", seen["dead.example"])
			}
		})
	}
}

func TestRoundRobin(t *testing.T) {
	r := start(t, queue.Options{First: 20})
	for i := range 4 {
		for _, d := range []string{"a", "b", "c"}[:3-i%2] {
			r.enqueue(message("s@x.example", fmt.Sprintf("%d@%s.example", i, d)), text)
		}
	}
	w := r.relayer()
	var got string
	for range 10 {
		got += takeOne(t, w).Domain[:1]
	}
	if got != "abcabcabab" {
		t.Errorf("order: %s", got)
	}
}

// More than fits the memory, of many destinations: all of it is delivered.
func TestMemoryIsBounded(t *testing.T) {
	o := queue.Options{MaxActive: 50, MaxBytes: 4 * len(text)}
	r := start(t, o)
	const n = 600
	for i := range n {
		r.enqueue(message("s@x.example", fmt.Sprintf("u@d%d.example", i%97)), text)
	}
	for _, again := range []bool{false, true} {
		if again {
			r = r.reopen(o)
		}
		w := r.relayer()
		for range n / 2 {
			j := takeOne(t, w)
			if string(j.Body) != text {
				t.Fatalf("body: %q", j.Body)
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
	}
	if s := r.stats(); s.Envelopes != 0 || s.Messages != 0 {
		t.Errorf("left: %+v", s)
	}
}

func TestLeasesComeBack(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	w, release := r.RelayWorker()
	first := takeOne(t, w)
	release()
	release() // twice is nothing
	if err := w.Done(context.Background(), results(first, queue.Result{Outcome: queue.Delivered})); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Done of a released worker: %v", err)
	}
	if _, err := w.Take(context.Background(), 1); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Take of a released worker: %v", err)
	}
	w2 := r.relayer()
	second := takeOne(t, w2)
	if second.Envelopes[0].ID != first.Envelopes[0].ID || string(second.Body) != text || second.Envelopes[0].Attempts != 0 {
		t.Errorf("came back as %+v", second)
	}
	done(t, w2, second, queue.Result{Outcome: queue.Returned})
	if third := takeOne(t, w2); third.Envelopes[0].ID != first.Envelopes[0].ID || third.Envelopes[0].Attempts != 0 {
		t.Errorf("returned as %+v", third)
	}
}

// A message that kills its worker is put off like one that fails.
func TestDeadlyMessageIsPutOff(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	for range 3 {
		w, release := r.RelayWorker()
		takeOne(t, w)
		release()
	}
	eventually(t, "deferral", func() bool { return r.list()[0].Envelope.Attempts == 1 })
	if e := r.list()[0].Envelope; !strings.Contains(e.LastError, "process ended") || time.Until(e.Next) < time.Minute {
		t.Errorf("envelope: %+v", e)
	}
}

func TestOnlyLeasedEnvelopes(t *testing.T) {
	r := start(t, queue.Options{})
	r.enqueue(message("a@x.example", "b@y.example", "c@z.example"), text)
	mine, other := r.relayer(), r.relayer()
	j := takeOne(t, mine)
	theirs := takeOne(t, other)
	unknown := queue.Result{ID: queue.EnvelopeID{Message: 1, N: 0}, Outcome: queue.Delivered}
	good := results(j, queue.Result{Outcome: queue.Delivered})
	for name, rs := range map[string][]queue.Result{
		"unknown":     {unknown},
		"another's":   results(theirs, queue.Result{Outcome: queue.Delivered}),
		"twice":       {good[0], good[0]},
		"mixed":       {good[0], unknown},
		"bad outcome": results(j, queue.Result{Outcome: 9}),
		"no outcome":  results(j, queue.Result{}),
	} {
		if err := mine.Done(context.Background(), rs); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := r.stats(); s.Envelopes != 2 || s.InFlight != 2 {
		t.Errorf("a refused call changed something: %+v", s)
	}
	if err := mine.Done(context.Background(), good); err != nil {
		t.Error(err)
	}
	if _, err := mine.Body(context.Background(), j.Message.ID, 0, 10); !errors.Is(err, rpc.ErrNotFound) {
		t.Errorf("body of another's message: %v", err)
	}
	for _, bad := range [][2]int{{-1, 10}, {0, 0}, {0, -1}} {
		if _, err := other.Body(context.Background(), theirs.Message.ID, int64(bad[0]), bad[1]); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("Body(%d, %d): %v", bad[0], bad[1], err)
		}
	}
	if p, err := other.Body(context.Background(), theirs.Message.ID, 6, 3); err != nil || string(p) != text[6:9] {
		t.Errorf("Body: %q, %v", p, err)
	}
}

func TestLocalDelivery(t *testing.T) {
	l := &local{uids: map[string]int{"ann": 501, "bob": 502}, gone: map[string]bool{"cid": true}}
	asked := make(chan [2]int, 10)
	var r *rig
	spawn := func(_ context.Context, uid, gid int) error {
		asked <- [2]int{uid, gid}
		if uid == 502 {
			return errors.New("no such thing")
		}
		return nil
	}
	r = open(t, filepath.Join(t.TempDir(), "q.db"), queue.Options{Spawn: spawn}, l)
	s := message("a@x.example")
	for _, u := range []string{"ann", "bob", "cid"} {
		s.Recipients = append(s.Recipients, mailbox(u))
	}
	r.enqueue(s, text)
	uids := map[int]bool{(<-asked)[0]: true, (<-asked)[0]: true}
	if !uids[501] || !uids[502] {
		t.Errorf("asked for %v", uids)
	}
	w, release := r.LocalWorker(501)
	defer release()
	j := takeOne(t, w)
	if j.Delivery == nil || j.Delivery.Path != "/mail/ann" || j.Delivery.UID != 501 || addresses(j) != "ann@local.example" {
		t.Errorf("job: %+v", j)
	}
	done(t, w, j, queue.Result{Outcome: queue.Delivered})
	// bob's is put off, cid's comes back to the sender.
	bounce := takeOne(t, r.relayer())
	if bounce.Message.Sender != "" || addresses(bounce) != "a@x.example" || !strings.Contains(string(bounce.Body), "user is no more") {
		t.Errorf("bounce: %+v %s", bounce, bounce.Body)
	}
	eventually(t, "deferral of bob's", func() bool {
		for _, e := range r.list() {
			if e.Envelope.User == "bob" && e.Envelope.Attempts == 1 {
				return strings.Contains(e.Envelope.LastError, "no such thing")
			}
		}
		return false
	})
}

func TestSpawnAgainAfterWorkersLeft(t *testing.T) {
	asked := make(chan int, 10)
	r := start(t, queue.Options{Spawn: func(_ context.Context, uid, _ int) error {
		asked <- uid
		return nil
	}})
	for range 3 {
		s := message("a@x.example")
		s.Recipients = append(s.Recipients, mailbox("ann"))
		r.enqueue(s, text)
		if uid := <-asked; uid != 1000 {
			t.Fatalf("asked for %d", uid)
		}
		w, release := r.LocalWorker(1000)
		j := takeOne(t, w)
		done(t, w, j, queue.Result{Outcome: queue.Delivered})
		release()
	}
}

func TestLookupDown(t *testing.T) {
	l := &local{down: errDown}
	r := open(t, filepath.Join(t.TempDir(), "q.db"), queue.Options{}, l)
	s := message("a@x.example", "b@y.example")
	s.Recipients = append(s.Recipients, mailbox("ann"))
	r.enqueue(s, text) // accepted all the same
	eventually(t, "deferral", func() bool {
		e := r.list()[1].Envelope
		return e.Attempts == 1 && strings.Contains(e.LastError, "tables are down")
	})
	w := r.relayer()
	done(t, w, takeOne(t, w), queue.Result{Outcome: queue.Failed, Code: 550, Text: "no"})
	// The failed envelope stays until its bounce can be sent.
	eventually(t, "postponed bounce", func() bool {
		return len(r.list()) == 2 && strings.Contains(r.log.String(), "report postponed")
	})
	l.set(func(l *local) { l.down = nil })
	// The two envelopes, and the bounce if it was quicker.
	if n := r.retryNow(0, -1); n.Due < 2 || n.Due > 3 || n.Held != 0 {
		t.Errorf("retry: %+v", n)
	}
	if j := takeOne(t, w); j.Message.Sender != "" || addresses(j) != "a@x.example" {
		t.Errorf("job: %+v", j)
	}
	lw, release := r.LocalWorker(1000)
	defer release()
	done(t, lw, takeOne(t, lw), queue.Result{Outcome: queue.Delivered})
}

// Whatever workers do, and however little fits the memory, every envelope is
// delivered in the end.
func TestNothingIsForgotten(t *testing.T) {
	r := start(t, queue.Options{MaxActive: 40, MaxBytes: 1000, Concurrency: 2, Retry: []time.Duration{time.Millisecond}})
	const messages, perMessage = 120, 3
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for seed := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			for i := range messages / 4 {
				rcpts := numbered(fmt.Sprintf("m%d-%d-%%d@d%d.example", seed, i, rng.IntN(30)), perMessage-1)
				rcpts = append(rcpts, fmt.Sprintf("m%d-%d@one%d-%d.example", seed, i, seed, i))
				r.enqueue(message("a@x.example", rcpts...), text)
			}
		})
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(seed), 2))
			for ctx.Err() == nil && r.stats().Delivered < messages*perMessage {
				work(ctx, r, rng)
			}
		})
	}
	wg.Wait()
	if s := r.stats(); s.Delivered != messages*perMessage || s.Messages != 0 || s.Envelopes != 0 || s.InFlight != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// work is the life of one moody worker.
func work(ctx context.Context, r *rig, rng *rand.Rand) {
	w, release := r.RelayWorker()
	defer release()
	for range 1 + rng.IntN(20) {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		jobs, _ := w.Take(ctx, 1+rng.IntN(5))
		cancel()
		var rs []queue.Result
		for _, j := range jobs {
			for _, e := range j.Envelopes {
				o := []queue.Outcome{queue.Delivered, queue.Delivered, queue.Delivered, queue.Deferred, queue.Returned}[rng.IntN(5)]
				rs = append(rs, queue.Result{ID: e.ID, Outcome: o})
			}
		}
		if len(rs) > 0 && rng.IntN(10) > 0 { // else they are lost with the worker
			if err := w.Done(context.Background(), rs); err != nil {
				r.t.Error(err)
			}
		}
	}
}
