package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tabard/internal/rpc"
	"tabard/queue"
)

// socketpair returns both ends of what connects two processes.
func socketpair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socketpair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

// connect serves one end and makes calls on the other; served is closed when
// the serving has ended.
func connect(t testing.TB, serve func(context.Context, net.Conn) error) (c *rpc.Client, served chan struct{}) {
	t.Helper()
	a, b := socketpair(t)
	served = make(chan struct{})
	go func() {
		serve(context.Background(), a)
		close(served)
	}()
	c = rpc.NewClient(b)
	t.Cleanup(func() {
		c.Close()
		<-served
	})
	return c, served
}

func (r *rig) client(t testing.TB) (queue.Client, *rpc.Client, chan struct{}) {
	c, served := connect(t, func(ctx context.Context, conn net.Conn) error { return queue.ServeClient(ctx, conn, r) })
	return queue.NewRemote(c), c, served
}

func (r *rig) remoteRelay(t testing.TB) (queue.Worker, *rpc.Client, chan struct{}) {
	c, served := connect(t, func(ctx context.Context, conn net.Conn) error { return r.ServeRelay(ctx, conn) })
	return queue.NewRemoteWorker(c), c, served
}

func TestRemoteLifeCycle(t *testing.T) {
	r := start(t, queue.Options{})
	c, _, _ := r.client(t)
	w, _, _ := r.remoteRelay(t)
	s := message("a@x.example", "b@y.example")
	s.Message.EnvID, s.Message.UTF8, s.Recipients[0].ORCPT = "e1", true, "rfc822;b@y.example"
	for _, n := range []int{0, 1, len(text), queue.InlineBody - 1, queue.InlineBody, queue.InlineBody + 1, queue.ColumnBody, queue.ColumnBody + 1, 700_001} {
		for _, how := range []string{"Enqueue", "Create"} {
			if how == "Enqueue" {
				body := bytes.Repeat([]byte("0123456789abcde\n"), (n+15)/16)[:n]
				if err := c.Enqueue(t.Context(), s, body); n > queue.InlineBody != (err != nil) {
					t.Fatalf("Enqueue of %d bytes: %v", n, err)
				} else if err != nil {
					continue
				}
			} else if err := stream(t, c, s, n); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			j := takeOne(t, w)
			if size, sum := readBody(t, w, j); size != int64(n) || sum != wantSum(n) {
				t.Fatalf("%s of %d bytes: read %d", how, n, size)
			}
			if e := j.Envelopes[0]; e.Address != "b@y.example" || e.ORCPT != "rfc822;b@y.example" || j.Message.EnvID != "e1" ||
				!j.Message.UTF8 || j.Domain != "y.example" || time.Since(e.Created) > time.Minute || time.Until(e.Expires) < 95*time.Hour {
				t.Fatalf("job: %+v", j)
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered, Code: 250, Text: strings.Repeat("x", 100_000)})
		}
	}
	if s := r.stats(); s.Messages != 0 || s.Delivered != 14 {
		t.Errorf("stats: %+v", s)
	}
}

func TestRemoteManyRecipients(t *testing.T) {
	r := start(t, queue.Options{})
	c, _, _ := r.client(t)
	s := message("a@x.example", numbered("n%d@"+strings.Repeat("long.", 40)+"example", 3000)...)
	if err := c.Enqueue(t.Context(), s, []byte(text)); err != nil {
		t.Fatal(err)
	}
	w, _, _ := r.remoteRelay(t)
	seen := map[string]bool{}
	for len(seen) < 3000 {
		for _, j := range take(t, w, 1000) {
			for _, e := range j.Envelopes {
				seen[e.Address] = true
			}
			done(t, w, j, queue.Result{Outcome: queue.Delivered})
		}
	}
	if s := r.stats(); s.Messages != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestRemoteErrors(t *testing.T) {
	r := start(t, queue.Options{})
	c, _, _ := r.client(t)
	if err := c.Enqueue(t.Context(), message("a\nb", "b@y.example"), nil); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("two lines: %v", err)
	}
	w, _, _ := r.remoteRelay(t)
	if err := w.Done(t.Context(), []queue.Result{{Outcome: queue.Delivered}}); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("not leased: %v", err)
	}
	if _, err := w.Take(t.Context(), 0); !errors.Is(err, rpc.ErrInvalid) {
		t.Errorf("no jobs: %v", err)
	}
	if _, err := w.Body(t.Context(), 1, 0, 10); !errors.Is(err, rpc.ErrNotFound) {
		t.Errorf("no body: %v", err)
	}
}

// What a peer was writing when it died is forgotten, what it had taken is due.
func TestPeerDies(t *testing.T) {
	r := start(t, queue.Options{})
	c, conn, served := r.client(t)
	w, err := c.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if len(bodyFiles(t, r.path)) != 1 {
		t.Fatal("nothing staged")
	}
	conn.Close()
	<-served
	if names := bodyFiles(t, r.path); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if err := w.Commit(t.Context(), message("", "b@y.example")); !errors.Is(err, rpc.ErrUnavailable) {
		t.Errorf("Commit: %v", err)
	}

	r.enqueue(message("a@x.example", "b@y.example"), text)
	worker, conn, served := r.remoteRelay(t)
	j := takeOne(t, worker)
	conn.Close()
	<-served
	if again := takeOne(t, r.relayer()); again.Envelopes[0].ID != j.Envelopes[0].ID {
		t.Errorf("job: %+v", again)
	}
}

// An answer that the peer gave up waiting for is not lost with it.
func TestLostAnswerToTake(t *testing.T) {
	r := start(t, queue.Options{})
	w, conn, _ := r.remoteRelay(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Take(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Take: %v", err)
	}
	r.enqueue(message("a@x.example", "b@y.example"), text)
	// A peer that takes, and never sees the answer: ack stays what it was.
	if err := conn.Call(t.Context(), "Worker.Take", []any{1, uint64(0)}, new(any)); err != nil {
		t.Fatal(err)
	}
	if s := r.stats(); s.InFlight != 1 {
		t.Fatalf("stats: %+v", s)
	}
	if j := takeOne(t, w); addresses(j) != "b@y.example" || j.Envelopes[0].Attempts != 0 {
		t.Errorf("job: %+v", j)
	}
}

func TestWriterLimits(t *testing.T) {
	r := start(t, queue.Options{})
	_, conn, _ := r.client(t)
	call := func(method string, args any) (id int64, err error) {
		var reply any
		err = conn.Call(t.Context(), method, args, &reply)
		switch v := reply.(type) {
		case uint64:
			id = int64(v)
		case int64:
			id = v
		}
		return id, err
	}
	var ids []int64
	for range queue.MaxWriters {
		id, err := call("Queue.Create", rpc.None{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if _, err := call("Queue.Create", rpc.None{}); !errors.Is(err, rpc.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	for name, args := range map[string]any{
		"elsewhere": []any{ids[0], 10, []byte("x")},
		"negative":  []any{ids[1], -1, []byte("x")},
		"unknown":   []any{int64(12345), 0, []byte("x")},
	} {
		if _, err := call("Queue.Write", args); !errors.Is(err, rpc.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Each fault ended its writer, so there is room again.
	if _, err := call("Queue.Create", rpc.None{}); err != nil {
		t.Errorf("after faults: %v", err)
	}
	for range 2 {
		_, err := call("Queue.Abort", ids[2])
		if _, err2 := call("Queue.Write", []any{ids[2], 0, []byte("x")}); !errors.Is(err2, rpc.ErrInvalid) {
			t.Errorf("after Abort (%v): %v", err, err2)
		}
	}
}

func TestRemoteAdmin(t *testing.T) {
	r := start(t, queue.Options{})
	admin := r.admin()
	rcpts := numbered("n%d@"+strings.Repeat("long.", 40)+"example", 4000)
	r.enqueue(message("a@x.example", rcpts...), text)
	var n int
	for after := (queue.EnvelopeID{}); ; {
		page, err := admin.Find(t.Context(), queue.Filter{}, after, 5000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.List) == 0 {
			break
		}
		for _, l := range page.List {
			if l.Envelope.Address != rcpts[n] || l.Sender != "a@x.example" {
				t.Fatalf("%d: %+v", n, l)
			}
			n++
		}
		after = page.List[len(page.List)-1].Envelope.ID
	}
	if n != len(rcpts) {
		t.Errorf("%d listed", n)
	}
	id := r.list()[0].Envelope.ID.Message
	if s, err := admin.Show(t.Context(), id, -1, 1<<20); err != nil || string(s.Body) != text || !s.More || s.Truncated || len(s.Envelopes) == 0 || s.Message.ID != id {
		t.Errorf("Show: %d envelopes, %q, %v", len(s.Envelopes), s.Body, err)
	}
	if s, err := admin.Show(t.Context(), id, 3999, 1<<20); err != nil || len(s.Envelopes) != 1 || s.Envelopes[0].Address != rcpts[3999] || s.More || s.Truncated {
		t.Errorf("Show of the last: %d envelopes, %v", len(s.Envelopes), err)
	}
	if n, busy, held := steerAll(t, admin, queue.OpRetry, only(id, 3)); n != 1 || busy != 0 || held != 0 {
		t.Errorf("retry: %d, %d, %d", n, busy, held)
	}
	if n, busy, refused := steerAll(t, admin, queue.OpRemove, only(id, -1)); n != 4000 || busy != 0 || refused != 0 {
		t.Errorf("remove: %d, %d, %d", n, busy, refused)
	}
	if s, err := admin.Stats(t.Context()); err != nil || s.Removed != 4000 || s.Messages != 0 {
		t.Errorf("Stats: %+v, %v", s, err)
	}
	if h, err := admin.Hold(t.Context(), queue.Hold{Kind: queue.HoldRoute, Value: "y.example", Reason: "why"}); err != nil || h.ID == 0 || h.Reason != "why" {
		t.Errorf("Hold: %+v, %v", h, err)
	}
	w, _, _ := r.remoteRelay(t)
	r.enqueue(message("a@x.example", "b@z.example"), text)
	j := takeOne(t, w)
	if len(j.Paused) != 1 || j.Paused[0].Reason != "why" {
		t.Errorf("paused: %+v", j.Paused)
	}
	done(t, w, j, queue.Result{Outcome: queue.Paused, Hold: j.Paused[0].ID, Servers: "mx:25", Source: "192.0.2.1", Window: 3})
	eventually(t, "held", func() bool { return r.heldCount() == 1 })
	if l, err := admin.Routes(t.Context()); err != nil || len(l) != 1 || l[0].Servers != "mx:25" || l[0].Source != "192.0.2.1" || l[0].Window != 3 {
		t.Errorf("Routes: %+v, %v", l, err)
	}
	if l, err := admin.Holds(t.Context()); err != nil || len(l) != 1 || l[0].Held != 1 {
		t.Errorf("Holds: %+v, %v", l, err)
	}
	if n, err := admin.Release(t.Context(), queue.HoldRoute, "y.example"); n != 1 || err != nil {
		t.Errorf("Release: %d, %v", n, err)
	}
	if _, err := admin.Show(t.Context(), id, -1, 1); !errors.Is(err, rpc.ErrNotFound) {
		t.Errorf("Show of nothing: %v", err)
	}
}

func TestRemoteLocalWorker(t *testing.T) {
	r := start(t, queue.Options{})
	s := message("a@x.example")
	s.Recipients = []queue.Envelope{mailbox("ann")}
	r.enqueue(s, text)
	c, _ := connect(t, func(ctx context.Context, conn net.Conn) error { return r.ServeLocal(ctx, conn, 1000) })
	w := queue.NewRemoteWorker(c)
	j := takeOne(t, w)
	if j.Delivery == nil || j.Delivery.Path != "/mail/ann" || string(j.Body) != text {
		t.Errorf("job: %+v", j)
	}
	done(t, w, j, queue.Result{Outcome: queue.Delivered})
}

// FuzzHostilePeer sends any argument to any method: the queue answers, with an
// error or not, and goes on working.
func FuzzHostilePeer(f *testing.F) {
	coding, err := rpc.NewCoding()
	if err != nil {
		f.Fatal(err)
	}
	seed := func(method uint8, args any) {
		b, err := coding.Marshal(args)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(method, b)
	}
	recipient := []any{"b@y.example", "b@y.example", "", "", "out", true, ""}
	msg := []any{int64(0), "a@x.example", false, false, "", "", "s", "", "", "", 0, 0}
	seed(0, []any{msg, []any{recipient}, []byte(text)})
	seed(1, map[string]any{})
	seed(2, []any{int64(1), 0, []byte("x")})
	seed(3, []any{int64(1), []any{recipient}})
	seed(4, []any{int64(1), msg})
	seed(5, int64(1))
	seed(6, []any{1, uint64(0)})
	seed(7, []any{int64(1), int64(0), 10})
	seed(8, []any{[]any{int64(1), 0, 1, 250, "2.0.0", "ok", "mx", false, 0}})
	methods := []string{"Queue.Enqueue", "Queue.Create", "Queue.Write", "Queue.Recipients", "Queue.Commit", "Queue.Abort", "Worker.Take", "Worker.Body", "Worker.Done"}
	r := open(f, filepath.Join(f.TempDir(), "queue.db"), queue.Options{}, &local{})
	f.Fuzz(func(t *testing.T, method uint8, arg []byte) {
		c, _ := connect(t, func(ctx context.Context, conn net.Conn) error {
			srv := rpc.NewServer()
			w, release := r.RelayWorker()
			defer release()
			done, err := queue.RegisterClient(srv, r)
			if err != nil {
				return err
			}
			defer done()
			if err := queue.RegisterWorker(srv, w); err != nil {
				return err
			}
			return srv.Serve(ctx, conn)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		_ = c.Call(ctx, methods[int(method)%len(methods)], raw(arg), new(any))
		if err := r.Enqueue(t.Context(), message("a@x.example", "b@y.example"), []byte(text)); err != nil {
			t.Fatal(err)
		}
		r.t = t
		for _, l := range r.list() {
			if strings.ContainsAny(fmt.Sprint(l.Envelope.Address, l.Envelope.Recipient, l.Sender), "\r\n") {
				t.Fatalf("stored: %+v", l)
			}
			steerAll(t, r, queue.OpRemove, only(l.Envelope.ID.Message, -1))
		}
	})
}

// raw is CBOR that is sent as it is.
type raw []byte

// MarshalCBOR implements cbor.Marshaler.
func (r raw) MarshalCBOR() ([]byte, error) { return r, nil }

// impatient is a caller that gives up on a Take whose answer is on its way.
type impatient struct {
	rpc.Caller
	giveUp context.CancelFunc
}

func (c *impatient) Call(ctx context.Context, method string, args, reply any) error {
	if method != "Worker.Take" || c.giveUp == nil {
		return c.Caller.Call(ctx, method, args, reply)
	}
	err := c.Caller.Call(ctx, method, args, reply)
	c.giveUp()
	c.giveUp = nil
	return errors.Join(err, ctx.Err())
}

// TestTakeGivenUp: jobs in an answer that nobody waited for any more are due
// again at once, though the worker lives on.
func TestTakeGivenUp(t *testing.T) {
	r := start(t, queue.Options{})
	_, conn, _ := r.remoteRelay(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	old := queue.NewRemoteWorker(&impatient{conn, cancel})
	r.enqueue(message("a@x.example", "b@y.example"), text)
	if jobs, err := old.Take(ctx, 10); !errors.Is(err, context.Canceled) {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	next, _, _ := r.remoteRelay(t)
	if j := takeOne(t, next); j.Envelopes[0].Attempts != 0 {
		t.Errorf("it counts as an attempt: %+v", j)
	}
	r.enqueue(message("a@x.example", "c@z.example"), text)
	if j := takeOne(t, old); addresses(j) != "c@z.example" {
		t.Errorf("the old worker got %s", addresses(j))
	}
}
