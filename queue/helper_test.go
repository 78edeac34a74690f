package queue_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tabard/internal/logging/logtest"
	"tabard/lookup"
	"tabard/queue"
	"tabard/queue/sqlite"
)

// local is lookup as the queue sees it: action "out" relays by MX, "smart" to
// fixed hosts, "box" delivers locally as the uid that uids names, else 1000.
type local struct {
	mu       sync.Mutex
	down     error
	uids     map[string]int
	gone     map[string]bool
	bounces  map[string]lookup.RecipientReply
	resolved int
	learned  int                 // questions for actions
	actions  []lookup.ActionInfo // more of them
	hold     chan struct{}       // if set, Actions answers when it is closed
}

func (l *local) Delivery(_ context.Context, r lookup.DeliveryRequest) (lookup.Delivery, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resolved++
	if l.down != nil {
		return lookup.Delivery{}, l.down
	}
	if l.gone[r.User] {
		return lookup.Delivery{Gone: true, Text: "user is no more"}, nil
	}
	uid, ok := l.uids[r.User]
	if !ok {
		uid = 1000
	}
	return lookup.Delivery{UID: uid, GID: uid, User: r.User, Method: "maildir", Path: "/mail/" + r.User}, nil
}

func (l *local) Bounce(_ context.Context, rcpt string) (lookup.RecipientReply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return lookup.RecipientReply{}, l.down
	}
	if r, ok := l.bounces[rcpt]; ok {
		return r, nil
	}
	return lookup.RecipientReply{Targets: []lookup.Target{{Relay: true, Address: rcpt}}}, nil
}

// Redirect knows "two@new.example", which is two recipients, and refuses the rest.
func (l *local) Redirect(_ context.Context, r lookup.RedirectRequest) (lookup.RecipientReply, error) {
	if r.Recipient != "two@new.example" {
		return lookup.RecipientReply{Code: 550, Enhanced: "5.1.1", Text: "nobody"}, nil
	}
	return lookup.RecipientReply{Targets: []lookup.Target{
		{Action: "out", Relay: true, Address: "one@new.example"}, {Action: "box", Address: "two@new.example", User: "two"},
	}}, nil
}

func (l *local) Actions(context.Context) ([]lookup.ActionInfo, error) {
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	if hold != nil {
		<-hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.learned++
	if l.down != nil {
		return nil, l.down
	}
	return append([]lookup.ActionInfo{
		{Name: "out", Relay: true}, {Name: "smart", Relay: true, Host: true}, {Name: "box"},
		{Name: "brief", Relay: true, TTL: time.Hour},
	}, l.actions...), nil
}

// asked is how often anything was asked.
func (l *local) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.resolved + l.learned
}

func (l *local) set(f func(*local)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
}

// rig is a running queue.
type rig struct {
	*queue.Queue
	t     testing.TB
	path  string
	local *local
	log   *logtest.Buffer
	stop  func() // Run and Close
}

func open(t testing.TB, path string, o queue.Options, l *local) *rig {
	t.Helper()
	store, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	r := openOn(t, store, o, l)
	r.path = path
	return r
}

// openOn runs a queue on a store.
func openOn(t testing.TB, store queue.Store, o queue.Options, l *local) *rig {
	t.Helper()
	var err error
	r := &rig{t: t, local: l, log: &logtest.Buffer{}}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if r.Queue, err = queue.New(context.Background(), store, l, o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		r.Run(ctx)
		close(ran)
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-ran
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func start(t testing.TB, o queue.Options) *rig {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "queue.db"), o, &local{})
}

// reopen stops the queue and starts another one on the same store.
func (r *rig) reopen(o queue.Options) *rig {
	r.t.Helper()
	r.stop()
	return open(r.t, r.path, o, r.local)
}

// message is a submission with a body.
func message(sender string, rcpts ...string) queue.Submission {
	s := queue.Submission{Message: queue.Message{Sender: sender, Session: "5e55"}}
	for _, a := range rcpts {
		s.Recipients = append(s.Recipients, relay(a))
	}
	return s
}

func relay(addr string) queue.Envelope {
	return queue.Envelope{Address: addr, Recipient: addr, Action: "out", Relay: true}
}

func mailbox(user string) queue.Envelope {
	return queue.Envelope{Address: user + "@local.example", Recipient: user + "@local.example", Action: "box", User: user}
}

const text = "From: a@x.example\r\nSubject: hello\r\n\r\nbody\r\n"

func (r *rig) enqueue(s queue.Submission, body string) {
	r.t.Helper()
	if err := r.Enqueue(context.Background(), s, []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

// relayer attaches a relay worker for the rest of the test.
func (r *rig) relayer() queue.Worker {
	w, release := r.RelayWorker()
	r.t.Cleanup(release)
	return w
}

func take(t testing.TB, w queue.Worker, max int) []queue.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	jobs, err := w.Take(ctx, max)
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

func takeOne(t testing.TB, w queue.Worker) queue.Job {
	t.Helper()
	return take(t, w, 1)[0]
}

// results gives every envelope of a job the same result.
func results(j queue.Job, r queue.Result) []queue.Result {
	var all []queue.Result
	for _, e := range j.Envelopes {
		r.ID = e.ID
		all = append(all, r)
	}
	return all
}

func done(t testing.TB, w queue.Worker, j queue.Job, r queue.Result) {
	t.Helper()
	if err := w.Done(context.Background(), results(j, r)); err != nil {
		t.Fatal(err)
	}
}

var errDown = errors.New("tables are down")

// eventually waits for what has no event of its own.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *rig) stats() queue.Stats {
	r.t.Helper()
	s, err := r.Stats(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) list() []queue.Listed {
	r.t.Helper()
	p, err := r.Find(context.Background(), queue.Filter{}, queue.EnvelopeID{}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return p.List
}

// only chooses envelope n of a message, all of it when n < 0, and everything when id
// is 0, too.
func only(id queue.MessageID, n int) queue.Filter {
	switch {
	case id == 0:
		return queue.Filter{}
	case n < 0:
		return queue.Filter{IDs: []string{id.String()}}
	}
	return queue.Filter{IDs: []string{queue.EnvelopeID{Message: id, N: n}.String()}}
}

// steerAll does one thing to all that a filter chooses. busy are those that were left
// alone because a worker has them.
func steerAll(t testing.TB, a queue.Admin, op queue.Op, f queue.Filter) (done, busy, refused int) {
	t.Helper()
	for s := (queue.Steer{Op: op, Filter: f, Limit: 500}); ; {
		out, err := a.Steer(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		done += out.Count
		for _, r := range out.Refused {
			if r.Busy {
				busy++
			} else {
				refused++
			}
		}
		if s.After = out.Last; !out.More {
			return done, busy, refused
		}
	}
}

// remove takes envelopes out, and tells how many.
func (r *rig) remove(id queue.MessageID, n int) int {
	r.t.Helper()
	done, busy, refused := steerAll(r.t, r, queue.OpRemove, only(id, n))
	if busy != 0 || refused != 0 {
		r.t.Errorf("remove: %d busy, %d refused", busy, refused)
	}
	return done
}

func addresses(j queue.Job) string {
	var all []string
	for _, e := range j.Envelopes {
		all = append(all, e.Address)
	}
	return strings.Join(all, " ")
}

func numbered(format string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(format, i))
	}
	return all
}
